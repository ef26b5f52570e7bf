package nbd.cli;

import java.io.IOException;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import nbd.client.NbdUri;
import nbd.client.NbdUri.TlsParameters;

/**
 * A listening socket, and the URI by which clients reach an export on it.
 *
 * @param name what the service manager calls a socket that it opened (see FileDescriptorName in
 *     systemd.socket(5)); empty for a socket of this process's own
 * @param socket the path of a Unix socket
 * @param made the files that were made for it, in the order in which they are removed; none for a
 *     socket that another process opened
 * @param inherited whether it is, with its files, still another server's, which may go on with it
 */
record Listening(
    ServerSocketChannel channel,
    NbdUri uri,
    String name,
    Optional<Path> socket,
    List<OwnFile> made,
    boolean inherited) {
  /** Describes a socket of this process's own. */
  static Listening own(
      ServerSocketChannel channel, NbdUri uri, Optional<Path> socket, List<OwnFile> made) {
    return new Listening(channel, uri, "", socket, made, false);
  }

  /** Says that it comes from a server that is taken over. */
  Listening asInherited() {
    return new Listening(channel, uri, name, socket, made, true);
  }

  /** Makes the URI one of TLS. */
  Listening withTls(TlsParameters parameters) {
    return new Listening(channel, uri.withTls(parameters), name, socket, made, inherited);
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
    try (channel) {
      if (!inherited) {
        removeFiles();
      }
    }
  }
}
