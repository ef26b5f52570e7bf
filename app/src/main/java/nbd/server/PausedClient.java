package nbd.server;

import java.nio.ByteBuffer;
import nbd.posix.Descriptor;
import nbd.transmission.OpenExport;

/**
 * A client whose connection has stopped between two requests, with all that the next one needs to
 * serve it from there on. Whoever has it closes the socket and the export's handle.
 *
 * @param peer for messages: " from 127.0.0.1:4711"; may be empty
 * @param socket without TLS
 * @param ahead the bytes of its next requests that have been read
 */
record PausedClient(String peer, Descriptor socket, OpenExport export, ByteBuffer ahead) {}
