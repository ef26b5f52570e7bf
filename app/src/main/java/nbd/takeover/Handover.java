package nbd.takeover;

import java.io.DataInput;
import java.io.DataOutput;
import java.io.IOException;
import java.util.List;
import java.util.Optional;
import nbd.posix.Descriptor;
import nbd.server.ListeningSocket;
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
   * @param name see {@link ListeningSocket#name}
   */
  public record Listener(String address, Optional<String> name, Descriptor socket) {
    /** Writes all but the socket, for {@link #read}. */
    void write(DataOutput to) throws IOException {
      to.writeUTF(address);
      to.writeBoolean(name.isPresent());
      to.writeUTF(name.orElse(""));
    }

    /** Reads what {@link #write} has written. */
    static Listener read(DataInput from, Descriptor socket) throws IOException {
      String address = from.readUTF();
      boolean isNamed = from.readBoolean();
      String name = from.readUTF();
      return new Listener(address, isNamed ? Optional.of(name) : Optional.empty(), socket);
    }
  }

  /** Closes the descriptors that nobody has released. */
  @Override
  public void close() {
    listeners.forEach(each -> each.socket().close());
    images.forEach(Descriptor::close);
    clients.forEach(each -> each.socket().close());
  }
}
