package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import nbd.testing.Eventually;
import nbd.testing.FreePort;

/** Another project's NBD server in a process of its own, which can be killed and started again. */
final class UpstreamProcess implements AutoCloseable {
  private final List<String> command;
  private final SocketAddress address;
  private final Path pidFile;
  private final Path out;
  private final boolean daemon;
  private ProcessHandle process;

  private UpstreamProcess(
      Path directory, SocketAddress address, boolean daemon, List<String> command)
      throws IOException, InterruptedException {
    this.command = command;
    this.address = address;
    this.daemon = daemon;
    this.pidFile = directory.resolve("upstream.pid");
    this.out = directory.resolve("upstream.out");
    this.process = launch();
  }

  private ProcessHandle launch() throws IOException, InterruptedException {
    // A killed server has left them behind.
    Files.deleteIfExists(pidFile);
    if (address instanceof UnixDomainSocketAddress unix) {
      Files.deleteIfExists(unix.getPath());
    }
    Process started = Tools.start(out, command.toArray(String[]::new));
    Eventually.isTrue(command.getFirst() + " is ready", () -> isReady() || hasFailed(started));
    assertThat(hasFailed(started)).as(() -> "it has failed; " + said()).isFalse();
    return daemon
        ? ProcessHandle.of(Long.parseLong(Files.readString(pidFile).strip())).orElseThrow()
        : started.toHandle();
  }

  private boolean hasFailed(Process started) {
    return !started.isAlive() && (!daemon || started.exitValue() != 0);
  }

  /**
   * Says whether it listens. The others write their pid file before they do; nbdkit's log would
   * show a connection.
   */
  private boolean isReady() {
    return Files.exists(pidFile) && (command.getFirst().equals("nbdkit") || accepts());
  }

  private boolean accepts() {
    try (SocketChannel channel = SocketChannel.open(address)) {
      return channel.isConnected();
    } catch (IOException notYet) {
      return false;
    }
  }

  private static UpstreamProcess with(
      Path directory, SocketAddress address, List<String> beginning, String... arguments)
      throws IOException, InterruptedException {
    List<String> command = new ArrayList<>(beginning);
    command.add(directory.resolve("upstream.pid").toString());
    command.addAll(List.of(arguments));
    return new UpstreamProcess(directory, address, false, command);
  }

  /** Starts nbdkit on a Unix socket in a directory. */
  static UpstreamProcess nbdkit(Path directory, String... arguments)
      throws IOException, InterruptedException {
    Path socket = socket(directory);
    return with(
        directory,
        UnixDomainSocketAddress.of(socket),
        List.of("nbdkit", "-f", "-U", socket.toString(), "-P"),
        arguments);
  }

  /** Starts nbdkit on a free TCP port. */
  static UpstreamProcess nbdkitTcp(Path directory, String... arguments)
      throws IOException, InterruptedException {
    InetSocketAddress address = free();
    return with(
        directory,
        address,
        List.of("nbdkit", "-f", "-i", "127.0.0.1", "-p", "" + address.getPort(), "-P"),
        arguments);
  }

  /** Starts qemu-nbd on a Unix socket in a directory. */
  static UpstreamProcess qemuNbd(Path directory, String... arguments)
      throws IOException, InterruptedException {
    Path socket = socket(directory);
    return with(
        directory,
        UnixDomainSocketAddress.of(socket),
        List.of("qemu-nbd", "-t", "-f", "raw", "-k", socket.toString(), "--pid-file"),
        arguments);
  }

  /** Starts qemu-nbd on a free TCP port. */
  static UpstreamProcess qemuNbdTcp(Path directory, String... arguments)
      throws IOException, InterruptedException {
    InetSocketAddress address = free();
    return with(
        directory,
        address,
        List.of(
            "qemu-nbd",
            "-t",
            "-f",
            "raw",
            "-b",
            "127.0.0.1",
            "-p",
            "" + address.getPort(),
            "--pid-file"),
        arguments);
  }

  /** Starts nbd-server on a free TCP port, with a file as the export "disk". */
  static UpstreamProcess nbdServer(Path directory, Path disk)
      throws IOException, InterruptedException {
    InetSocketAddress address = free();
    Path configuration =
        Files.writeString(
            directory.resolve("nbd-server.conf"),
            """
            [generic]
            listenaddr = 127.0.0.1
            port = %d
            allowlist = true
            [disk]
            exportname = %s
            flush = true
            fua = true
            trim = true
            """
                .formatted(address.getPort(), disk));
    // In the foreground it would serve one client.
    String pid = directory.resolve("upstream.pid").toString();
    return new UpstreamProcess(
        directory, address, true, List.of("nbd-server", "-C", configuration.toString(), "-p", pid));
  }

  /** Returns the socket of {@link #nbdkit} and {@link #qemuNbd}. */
  static Path socket(Path directory) {
    return directory.resolve("upstream");
  }

  private static InetSocketAddress free() throws IOException {
    return new InetSocketAddress(InetAddress.getLoopbackAddress(), FreePort.find());
  }

  /** Makes the URI of an export. */
  String uri(String export) {
    return address instanceof InetSocketAddress tcp
        ? "nbd://127.0.0.1:%d/%s".formatted(tcp.getPort(), export)
        : "nbd+unix:///%s?socket=%s".formatted(export, address);
  }

  /** Makes the URI of the export without a name. */
  String uri() {
    return uri("");
  }

  /** Returns the address, for a client of the tests' own. */
  SocketAddress address() {
    return address;
  }

  /** Ends it by SIGKILL. */
  void kill() {
    process.destroyForcibly();
    process.onExit().join();
  }

  /** Starts it once more, at the same address. */
  void startAgain() throws IOException, InterruptedException {
    process = launch();
  }

  String said() {
    try {
      return Files.readString(out) + Files.readString(Path.of(out + ".err"));
    } catch (IOException failure) {
      return failure.toString();
    }
  }

  @Override
  public void close() {
    kill();
  }
}
