package nbd.server;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.posix.Descriptor;
import nbd.protocol.Printable;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.transmission.OpenExport;
import org.tinylog.Logger;

/**
 * A client whose connection has stopped between two requests, with all that the next one needs to
 * serve it from there on. Whoever has it closes it, or gives it to a connection.
 *
 * @param socket without TLS
 * @param seat of the client in the export
 * @param ahead the bytes of its next requests that have been read
 */
record PausedClient(Descriptor socket, OpenExport export, Seat seat, ByteBuffer ahead) {
  /**
   * Makes everything durable that was written. A failure is no report of a loss: the client never
   * sees it.
   */
  void flush() throws IOException {
    Handle handle = export.handle();
    if (handle.capabilities().has(Capability.WRITE)
        && handle.capabilities().has(Capability.FLUSH)) {
      handle.run(Operation.flushForFua());
    }
  }

  /** Closes the handle and this descriptor of the socket. */
  void close() {
    try {
      export.close();
    } catch (IOException failure) {
      Logger.error("export \"{}\": {}", Printable.name(export.name()), failure.getMessage());
    } finally {
      socket.close();
    }
  }
}
