package nbd.cli;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.net.UnknownHostException;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import nbd.client.NbdUri;
import nbd.posix.AdoptedSocket;
import nbd.server.ListeningSocket;
import picocli.CommandLine.Option;

/** The options of serve for the addresses on which it listens. */
final class ListenOptions {
  /** So many clients may connect at once. */
  private static final int BACKLOG = 1024;

  private static final String ADDRESS = "127.0.0.1";
  private static final int PORT = 10809;
  private static final String PRIVATE_PREFIX = "nbd-multiconn-";
  private static final Path PRIVATE = Path.of("-");

  @Option(
      names = {"-i", "--address"},
      paramLabel = "ADDR",
      description =
          "Listen on this address (default: "
              + ADDRESS
              + "); 0.0.0.0 or :: for all. More than once: on each, with each --port.")
  private List<String> addresses = List.of();

  @Option(
      names = {"-p", "--port"},
      paramLabel = "PORT",
      description =
          "Listen on this TCP port (default: "
              + PORT
              + "); 0 for any free one. More than once: on each.")
  private List<Integer> ports = List.of();

  @Option(
      names = {"-U", "--unix"},
      paramLabel = "PATH",
      description =
          "Listen on this Unix socket, and on TCP only with --port or --address; it is removed at"
              + " exit. With -, on one in a new private directory, which is removed too. More than"
              + " once: on each.")
  private List<Path> unix = List.of();

  /** Throws a {@link UsageException} if the options are wrong. */
  void check() {
    for (int port : ports) {
      UsageException.refuseIf(
          port < 0 || port > 65535, "--port: " + port + " is not from 0 to 65535");
    }
  }

  /**
   * Listens as the options say: on each port of each address, then on each Unix socket. Without
   * options, those inherited sockets are used that the service manager opened, if there are any.
   *
   * @param exportName the export in the URIs
   * @param inherited sockets that are used instead of new ones
   * @param privately whether to listen on a private Unix socket if no option is given
   * @return at least one
   * @throws IOException with a message for the user; nothing that was made is left
   */
  List<Listening> listen(String exportName, boolean privately, InheritedSockets inherited)
      throws IOException {
    List<Listening> made = new ArrayList<>();
    boolean done = false;
    try {
      if (isDefault()) {
        for (var given = inherited.takeOfServiceManager();
            given.isPresent();
            given = inherited.takeOfServiceManager()) {
          made.add(Listening.ofServiceManager(given.get(), exportName).asInherited());
        }
      }
      if (made.isEmpty() && isTcp(privately)) {
        for (String address : addresses.isEmpty() ? List.of(ADDRESS) : addresses) {
          for (int port : ports.isEmpty() ? List.of(PORT) : ports) {
            made.add(listenTcp(address, port, exportName, inherited));
          }
        }
      }
      for (Path path : unix.isEmpty() && made.isEmpty() ? List.of(PRIVATE) : unix) {
        made.add(
            path.equals(PRIVATE)
                ? listenPrivately(exportName, inherited)
                : listenUnix(path, exportName, List.of(), inherited));
      }
      done = true;
      return made;
    } finally {
      if (!done) {
        for (Listening one : made) {
          one.close();
        }
      }
    }
  }

  private boolean isDefault() {
    return addresses.isEmpty() && ports.isEmpty() && unix.isEmpty();
  }

  private boolean isTcp(boolean privately) {
    return !addresses.isEmpty() || !ports.isEmpty() || (unix.isEmpty() && !privately);
  }

  private static Listening listenTcp(
      String address, int port, String exportName, InheritedSockets inherited) throws IOException {
    ServerSocketChannel channel = ServerSocketChannel.open();
    try {
      InetAddress host = InetAddress.getByName(address);
      InetSocketAddress wanted = new InetSocketAddress(host, port);
      Optional<ListeningSocket> taken =
          port == 0
              ? inherited.takeAnyPort(wanted)
              : inherited.take(InheritedSockets.nameOf(wanted));
      if (taken.isPresent()) {
        channel.close();
        if (taken.get().name().isPresent()) {
          return Listening.ofServiceManager(taken.get(), exportName).asInherited();
        }
        ServerSocketChannel present = taken.get().channel();
        int bound = ((InetSocketAddress) AdoptedSocket.localAddress(present)).getPort();
        return tcp(present, host, bound, exportName).asInherited();
      }
      channel.setOption(StandardSocketOptions.SO_REUSEADDR, true);
      channel.bind(wanted, BACKLOG);
      int bound = ((InetSocketAddress) channel.getLocalAddress()).getPort();
      return tcp(channel, host, bound, exportName);
    } catch (UnknownHostException unknown) {
      channel.close();
      throw new IOException("the address " + address + " is not known", unknown);
    } catch (IOException failure) {
      channel.close();
      throw new IOException(
          "cannot listen on %s port %d: %s".formatted(address, port, failure.getMessage()),
          failure);
    }
  }

  private static Listening tcp(
      ServerSocketChannel channel, InetAddress host, int port, String exportName) {
    return Listening.own(channel, NbdUri.tcp(host, port, exportName), Optional.empty(), List.of());
  }

  /**
   * Listens on a Unix socket.
   *
   * @param around the directory that was made for it, if any; removed after the socket
   */
  private static Listening listenUnix(
      Path path, String exportName, List<OwnFile> around, InheritedSockets inherited)
      throws IOException {
    Optional<ListeningSocket> taken = inherited.take(InheritedSockets.nameOf(path));
    ServerSocketChannel channel =
        taken.isPresent() ? taken.get().channel() : UnixSocket.listen(path, BACKLOG);
    try {
      if (taken.isPresent() && taken.get().name().isPresent()) {
        return Listening.ofServiceManager(taken.get(), exportName).asInherited();
      }
      List<OwnFile> made = new ArrayList<>(List.of(OwnFile.of(path)));
      made.addAll(around);
      Listening listening =
          Listening.own(channel, NbdUri.unix(path, exportName), Optional.of(path), made);
      return taken.isPresent() ? listening.asInherited() : listening;
    } catch (IOException gone) {
      channel.close();
      throw new IOException("cannot listen on %s: %s".formatted(path, Failure.reason(gone)), gone);
    }
  }

  /** Listens on a Unix socket that only this user can reach. */
  private static Listening listenPrivately(String exportName, InheritedSockets inherited)
      throws IOException {
    String temporary = System.getenv("TMPDIR");
    Path parent =
        Path.of(
            temporary == null || temporary.isEmpty()
                ? System.getProperty("java.io.tmpdir", "/tmp")
                : temporary);
    Optional<Path> present = inherited.privateSocket(parent, PRIVATE_PREFIX);
    if (present.isPresent()) {
      Path socket = present.get();
      OwnFile around = OwnFile.of(Objects.requireNonNull(socket.getParent()));
      return listenUnix(socket, exportName, List.of(around), inherited);
    }
    Path directory;
    try {
      directory = Files.createTempDirectory(parent, PRIVATE_PREFIX).toAbsolutePath();
    } catch (IOException failure) {
      throw new IOException(
          "no directory for a private socket can be made in %s: %s; set TMPDIR to another"
              .formatted(parent, Failure.reason(failure)),
          failure);
    }
    try {
      return listenUnix(
          directory.resolve("socket"), exportName, List.of(OwnFile.of(directory)), inherited);
    } catch (IOException failure) {
      Files.deleteIfExists(directory);
      throw failure;
    }
  }
}
