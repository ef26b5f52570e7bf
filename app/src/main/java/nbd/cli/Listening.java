package nbd.cli;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import nbd.client.Endpoint;
import nbd.client.NbdUri;
import nbd.client.NbdUri.TlsParameters;
import nbd.posix.AdoptedSocket;
import nbd.server.ListeningSocket;

/**
 * A listening socket, and the URI by which clients reach an export on it.
 *
 * @param socket the path of a Unix socket
 * @param made the files that were made for it, in the order in which they are removed; none for a
 *     socket that another process opened
 * @param inherited whether it is, with its files, still another server's, which may go on with it
 */
record Listening(
    ListeningSocket listener,
    NbdUri uri,
    Optional<Path> socket,
    List<OwnFile> made,
    boolean inherited) {
  /** Describes a socket of this process's own. */
  static Listening own(
      ServerSocketChannel channel, NbdUri uri, Optional<Path> socket, List<OwnFile> made) {
    ListeningSocket listener = new ListeningSocket(channel, Optional.empty());
    return new Listening(listener, uri, socket, made, false);
  }

  /**
   * Describes a socket that the service manager has opened, to which its files belong, too.
   *
   * @param exportName the export in the URI, unless the socket's name restricts it to another
   */
  static Listening ofServiceManager(ListeningSocket listener, String exportName)
      throws IOException {
    SocketAddress address = AdoptedSocket.localAddress(listener.channel());
    String export = listener.onlyExport().orElse(exportName);
    return switch (address) {
      case UnixDomainSocketAddress unix -> {
        Path path = unix.getPath();
        NbdUri uri = new NbdUri(new Endpoint.Unix(path), false, export, TlsParameters.NONE);
        yield new Listening(listener, uri, Optional.of(path), List.of(), false);
      }
      case InetSocketAddress internet -> {
        NbdUri uri = NbdUri.tcp(internet.getAddress(), internet.getPort(), export);
        yield new Listening(listener, uri, Optional.empty(), List.of(), false);
      }
      default -> throw new IOException("not a TCP or Unix socket: " + address);
    };
  }

  /** Returns the socket's channel. */
  ServerSocketChannel channel() {
    return listener.channel();
  }

  /** Says that it comes from a server that is taken over. */
  Listening asInherited() {
    return new Listening(listener, uri, socket, made, true);
  }

  /** Makes the URI one of TLS. */
  Listening withTls(TlsParameters parameters) {
    return new Listening(listener, uri.withTls(parameters), socket, made, inherited);
  }

  /** Removes the files, except those that others have replaced. */
  void removeFiles() throws IOException {
    for (OwnFile file : made) {
      file.remove();
    }
  }

  /** Closes the socket, and removes the files that are not another server's. */
  void close() throws IOException {
    // Before it is closed: afterwards another server may put its own socket there.
    try (ServerSocketChannel _ = channel()) {
      if (!inherited) {
        removeFiles();
      }
    }
  }
}
