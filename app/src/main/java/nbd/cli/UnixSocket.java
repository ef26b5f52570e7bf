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
import org.jspecify.annotations.Nullable;

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
    removeAbandoned(path);
    ServerSocketChannel channel = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    try {
      return channel.bind(UnixDomainSocketAddress.of(path), backlog);
    } catch (IOException failure) {
      channel.close();
      throw cannot(path, Failure.reason(failure), failure);
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
    refuseUnlessAbandoned(path, path);
    Path aside = path.resolveSibling("." + Long.toString(ProcessHandle.current().pid(), 36));
    try {
      Files.move(path, aside);
    } catch (NoSuchFileException another) {
      return; // Another server is replacing it: binding decides.
    } catch (IOException failure) {
      throw cannot(path, "the socket there cannot be removed: " + Failure.reason(failure), failure);
    }
    try {
      refuseUnlessAbandoned(aside, path);
    } catch (IOException inUse) {
      Files.createLink(path, aside);
      Files.delete(aside);
      throw inUse;
    }
    Files.delete(aside);
  }

  /**
   * Throws unless this is a socket on which no server answers.
   *
   * @param place the socket's present name
   * @param path its name in the message
   */
  private static void refuseUnlessAbandoned(Path place, Path path) throws IOException {
    if (OwnFile.type(place, NOFOLLOW_LINKS) != OwnFile.SOCKET) {
      throw cannot(path, "it exists and is not a socket", null);
    }
    // A blocking connect would wait for a server whose backlog is full.
    try (SocketChannel probe = SocketChannel.open(StandardProtocolFamily.UNIX)) {
      probe.configureBlocking(false);
      probe.connect(UnixDomainSocketAddress.of(place));
    } catch (ConnectException refused) {
      return;
    } catch (IOException unknown) {
      throw cannot(
          path, "it is not known whether a server uses it: " + Failure.reason(unknown), unknown);
    }
    throw cannot(path, "another server answers on it", null);
  }

  private static IOException cannot(Path path, String why, @Nullable IOException cause) {
    return new IOException("cannot listen on %s: %s".formatted(path, why), cause);
  }
}
