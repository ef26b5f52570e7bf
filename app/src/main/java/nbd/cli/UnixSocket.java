package nbd.cli;

import static java.nio.file.LinkOption.NOFOLLOW_LINKS;

import java.io.IOException;
import java.net.ConnectException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;

/**
 * The making of Unix sockets. The socket that a killed server left behind is replaced; nothing else
 * that has the socket's name is touched.
 */
final class UnixSocket {
  private UnixSocket() {}

  /**
   * Makes a socket and listens on it.
   *
   * @param backlog the most connections that wait to be accepted
   * @throws IOException with a message for the user
   */
  static ServerSocketChannel listen(Path path, int backlog) throws IOException {
    try {
      removeAbandoned(path);
      ServerSocketChannel channel = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
      try {
        return channel.bind(UnixDomainSocketAddress.of(path), backlog);
      } catch (IOException failure) {
        channel.close();
        throw failure;
      }
    } catch (IOException failure) {
      throw new IOException(
          "cannot listen on %s: %s".formatted(path, Failure.reason(failure)), failure);
    }
  }

  /**
   * Removes a socket on which no server answers. Between the check and the removal another server
   * may put its own socket there: so the socket is first moved to a name that only this process
   * knows, checked again, and put back if it is in use.
   */
  private static void removeAbandoned(Path path) throws IOException {
    if (!Files.exists(path, NOFOLLOW_LINKS)) {
      return;
    }
    refuseUnlessAbandoned(path);
    Path aside = path.resolveSibling("." + Long.toString(ProcessHandle.current().pid(), 36));
    try {
      Files.move(path, aside);
    } catch (NoSuchFileException another) {
      return; // Another server is replacing it: binding decides.
    } catch (IOException failure) {
      throw new IOException(
          "the socket there cannot be removed: " + Failure.reason(failure), failure);
    }
    try {
      refuseUnlessAbandoned(aside);
    } catch (IOException inUse) {
      Files.createLink(path, aside);
      throw inUse;
    } finally {
      Files.delete(aside);
    }
  }

  private static void refuseUnlessAbandoned(Path socket) throws IOException {
    if (OwnFile.type(socket, NOFOLLOW_LINKS) != OwnFile.SOCKET) {
      throw new IOException("it exists and is not a socket");
    }
    // A blocking connect would wait for a server whose backlog is full.
    try (SocketChannel probe = SocketChannel.open(StandardProtocolFamily.UNIX)) {
      probe.configureBlocking(false);
      probe.connect(UnixDomainSocketAddress.of(socket));
    } catch (ConnectException refused) {
      return;
    } catch (IOException unknown) {
      throw new IOException(
          "it is not known whether a server uses it: " + Failure.reason(unknown), unknown);
    }
    throw new IOException("another server answers on it");
  }
}
