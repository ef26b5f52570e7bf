/**
 * The server: an accept loop, and for each connection a virtual thread that negotiates ({@link
 * nbd.server.Handshake}) and then serves requests ({@link nbd.transmission.Transmission}). Storage
 * is reached only through handles. {@link nbd.server.NbdServer} is a server for other programs.
 */
@NullMarked
package nbd.server;

import org.jspecify.annotations.NullMarked;
