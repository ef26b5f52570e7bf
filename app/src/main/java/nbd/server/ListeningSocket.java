package nbd.server;

import java.io.IOException;
import java.nio.channels.ServerSocketChannel;
import java.util.List;
import java.util.Optional;
import nbd.posix.AdoptedSocket;
import nbd.posix.Descriptor;

/**
 * A listening socket of a server.
 *
 * @param channel bound, in blocking mode
 * @param name given by the service manager that opened the socket, by FileDescriptorName= in
 *     systemd.socket(5); empty if this program opened it
 */
public record ListeningSocket(ServerSocketChannel channel, Optional<String> name) {
  /** The socket without a channel. Whoever has it closes the descriptor. */
  public record Kept(Descriptor socket, Optional<String> name) {
    /**
     * Makes a channel again.
     *
     * @throws IOException if that fails; the descriptor stays open then, and is released otherwise
     */
    public ListeningSocket again() throws IOException {
      ListeningSocket again = new ListeningSocket(AdoptedSocket.listener(socket.number()), name);
      int _ = socket.release();
      return again;
    }
  }

  /** Makes sockets that this program opened. */
  public static List<ListeningSocket> own(List<ServerSocketChannel> channels) {
    return channels.stream().map(each -> new ListeningSocket(each, Optional.empty())).toList();
  }

  /** Opens the socket once more, so that its channel can be closed. */
  Kept keep() throws IOException {
    return new Kept(Descriptor.of(channel), name);
  }

  /** Returns the export that clients of this socket find, if its name restricts it to one. */
  public Optional<String> onlyExport() {
    return name.filter(ListeningSocket::isExport);
  }

  /**
   * Tells the name of an export from one that says nothing: systemd calls a socket without a name
   * after its unit, and sockets otherwise unknown or connection, see sd_listen_fds(3).
   */
  private static boolean isExport(String name) {
    return switch (name) {
      case "", "unknown", "connection" -> false;
      default -> !name.endsWith(".socket");
    };
  }
}
