package nbd.cli;

import java.io.IOException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.nio.file.attribute.UserPrincipal;
import java.time.Duration;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import jdk.net.ExtendedSocketOptions;
import nbd.control.ControlServer;
import nbd.control.Handler;
import nbd.posix.Descriptor;
import nbd.server.ListeningSocket;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The socket of {@code --control}, for this user and root only. Its mode says so; and since it has
 * another mode for a moment when it is made, each client's user is asked for, too.
 */
final class ControlSocket {
  private static final int BACKLOG = 64;

  private final Path path;
  private final Map<String, Handler> handlers;

  private @Nullable ControlServer server;
  private @Nullable OwnFile file;
  private @Nullable ServerSocketChannel listener;

  /** Answers requests by these handlers, once it is open. */
  ControlSocket(Path path, Map<String, Handler> handlers) {
    this.path = path;
    this.handlers = handlers;
  }

  /**
   * Makes the socket, or goes on with another server's, and starts to answer.
   *
   * @throws IOException with a message for the user
   */
  void open(InheritedSockets inherited) throws IOException {
    Optional<ListeningSocket> taken = inherited.take(InheritedSockets.controlSocket());
    ServerSocketChannel channel =
        taken.isPresent() ? taken.get().channel() : UnixSocket.listen(path, BACKLOG);
    listener = channel;
    try {
      file = OwnFile.of(path);
      Files.setPosixFilePermissions(path, PosixFilePermissions.fromString("rw-------"));
      UserPrincipal owner = Files.getOwner(path);
      server = ControlServer.start(channel, handlers, client -> isAllowed(client, owner));
    } catch (IOException failure) {
      channel.close();
      throw new IOException(
          "cannot listen on %s: %s".formatted(path, Failure.reason(failure)), failure);
    }
  }

  private static boolean isAllowed(SocketChannel client, UserPrincipal owner) {
    try {
      UserPrincipal user = client.getOption(ExtendedSocketOptions.SO_PEERCRED).user();
      return user.equals(owner) || user.getName().equals("root");
    } catch (IOException | UnsupportedOperationException unknown) {
      Logger.debug("control: {}", unknown.getMessage());
      return false;
    }
  }

  /** Removes the socket, and accepts no more clients; those that are there are answered. */
  void close() throws IOException {
    // Before it is closed: afterwards another server may put its own socket there.
    if (file != null) {
      file.remove();
    }
    if (server != null) {
      server.stopAccepting();
    }
  }

  /** Returns the path of the socket. */
  Path path() {
    return path;
  }

  /** Returns the listening socket once more. */
  Descriptor listener() throws IOException {
    return Descriptor.of(Objects.requireNonNull(listener));
  }

  /** Leaves the socket to another server, and accepts no more clients. */
  void leave() throws IOException {
    file = null;
    close();
  }

  /** Waits until all clients are answered, or the patience is at its end. */
  void awaitAnswers(Duration patience) {
    if (server != null) {
      boolean _ = server.awaitAnswers(patience);
    }
  }
}
