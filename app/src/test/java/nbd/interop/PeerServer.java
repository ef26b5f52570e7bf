package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import nbd.testing.Eventually;

/** Another project's NBD server in a process of its own. */
final class PeerServer implements AutoCloseable {
  private final Process process;
  private final Path out;
  private final Path pidFile;
  private final String uri;

  private PeerServer(Path directory, String uri, Listens listens, List<String> command)
      throws IOException, InterruptedException {
    this.uri = uri;
    out = Files.createTempFile(directory, "peer-", ".out");
    pidFile = directory.resolve("peer.pid");
    process = Tools.start(out, command.toArray(new String[0]));
    Eventually.isTrue("the server answers", listens::already);
  }

  /** Whether a server can be connected to. */
  @FunctionalInterface
  private interface Listens {
    boolean already();
  }

  private static boolean listensOn(Path socket) {
    try (SocketChannel probe = SocketChannel.open(UnixDomainSocketAddress.of(socket))) {
      return probe.isConnected();
    } catch (IOException notYet) {
      return false;
    }
  }

  private static int freePort() throws IOException {
    try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      return free.getLocalPort();
    }
  }

  /** nbdkit on a Unix socket in the directory; options and plugin as on its command line. */
  static PeerServer nbdkit(Path directory, String... arguments)
      throws IOException, InterruptedException {
    Path socket = Files.createTempDirectory(directory, "nbdkit-").resolve("socket");
    List<String> command = new ArrayList<>(List.of("nbdkit", "-f", "-U", socket.toString()));
    command.addAll(List.of(arguments));
    return new PeerServer(
        directory, "nbd+unix:///?socket=" + socket, () -> listensOn(socket), command);
  }

  /** nbdkit on a TCP port; options and plugin as on its command line. */
  static PeerServer nbdkitTcp(Path directory, String... arguments)
      throws IOException, InterruptedException {
    int port = freePort();
    Path pid = directory.resolve("nbdkit.pid");
    List<String> command =
        new ArrayList<>(
            List.of("nbdkit", "-f", "-i", "127.0.0.1", "-p", "" + port, "-P", pid.toString()));
    command.addAll(List.of(arguments));
    return new PeerServer(
        directory, "nbd://127.0.0.1:" + port + "/", () -> Files.exists(pid), command);
  }

  /** qemu-nbd on a Unix socket in the directory. */
  static PeerServer qemuNbd(Path directory, String export, String... arguments)
      throws IOException, InterruptedException {
    Path socket = directory.resolve("qemu.sock");
    List<String> command =
        new ArrayList<>(
            List.of("qemu-nbd", "-t", "-e", "8", "-k", socket.toString(), "-x", export));
    command.addAll(List.of(arguments));
    return new PeerServer(
        directory, "nbd+unix:///" + export + "?socket=" + socket, () -> listensOn(socket), command);
  }

  /** nbd-server with the export "default". */
  static PeerServer nbdServer(Path directory, Path image) throws IOException, InterruptedException {
    Path socket = directory.resolve("nbd-server.sock");
    Path config =
        Files.writeString(
            directory.resolve("nbd-server.conf"),
            """
            [generic]
            unixsock = %s
            listenaddr = 127.0.0.1
            port = %d
            allowlist = true
            [default]
            exportname = %s
            flush = true
            fua = true
            trim = true
            """
                .formatted(socket, freePort(), image));
    return new PeerServer(
        directory,
        "nbd+unix:///default?socket=" + socket,
        () -> listensOn(socket),
        List.of(
            "nbd-server", "-C", config.toString(), "-p", directory.resolve("peer.pid").toString()));
  }

  String uri() {
    return uri;
  }

  /** Ends it at once. */
  void kill() {
    process.destroyForcibly();
  }

  @Override
  public void close() throws IOException {
    if (Files.exists(pidFile)) {
      // It has gone into the background.
      ProcessHandle.of(Long.parseLong(Files.readString(pidFile).strip()))
          .ifPresent(ProcessHandle::destroy);
    }
    process.destroy();
    try {
      assertThat(process.waitFor(20, TimeUnit.SECONDS))
          .as("it ends; it said %s", Files.readString(Path.of(out + ".err")))
          .isTrue();
    } catch (InterruptedException interrupted) {
      throw new AssertionError(interrupted);
    } finally {
      process.destroyForcibly();
    }
  }
}
