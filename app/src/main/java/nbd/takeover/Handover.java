package nbd.takeover;

import java.util.List;
import nbd.posix.Descriptor;
import nbd.server.Server;

/**
 * What one server hands over to another. Whoever has it closes the descriptors.
 *
 * @param program the version of the program that hands over
 * @param listeners the listening sockets
 * @param images the openings that hold the locks of images
 * @param clients the connected clients, between two requests
 */
public record Handover(
    String program, List<Listener> listeners, List<Descriptor> images, List<Server.Client> clients)
    implements AutoCloseable {
  /**
   * A listening socket.
   *
   * @param address by which the new server finds the one that it would otherwise make
   */
  public record Listener(String address, Descriptor socket) {}

  /** Closes the descriptors that nobody has released. */
  @Override
  public void close() {
    listeners.forEach(each -> each.socket().close());
    images.forEach(Descriptor::close);
    clients.forEach(each -> each.socket().close());
  }
}
