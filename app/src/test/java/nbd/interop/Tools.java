package nbd.interop;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assertions.fail;

import java.io.File;
import java.io.IOException;
import java.net.SocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import nbd.testing.Eventually;
import nbd.testing.Missing;

/**
 * Ways to run other programs. If one is not installed, the test is skipped; with
 * NBD_REQUIRE_TOOLS=1 in the environment it fails.
 */
final class Tools {
  private static final long HANG_SECONDS = 120;

  /**
   * Python that becomes a command with listening sockets, as a service manager starts it. Its
   * arguments: the sockets' names, with colons between them; the path of the sockets, behind which
   * comes the number of each, from 0; the command.
   */
  static final String ACTIVATE =
      """
      import fcntl, os, socket, sys
      names, path, command = sys.argv[1], sys.argv[2], sys.argv[3:]
      count = names.count(":") + 1
      for i in range(count):
          s = socket.socket(socket.AF_UNIX)
          s.bind(path + str(i))
          s.listen()
          fcntl.fcntl(s, fcntl.F_DUPFD, 100 + i)
          s.close()
      for i in range(count):
          os.dup2(100 + i, 3 + i)
          os.close(100 + i)
      os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES=names)
      os.execvp(command[0], command)
      """;

  private Tools() {}

  /** A program's exit status and output. */
  record Result(int status, String out, String err) {
    /** Returns this, after checking that the program succeeded. */
    Result ok() {
      assertThat(status).as("status; it said %s%s", out, err).isZero();
      return this;
    }
  }

  /** Waits until somebody listens on a socket. */
  static void awaitListening(SocketAddress address) throws InterruptedException {
    Eventually.isTrue(
        "somebody listens",
        () -> {
          try (SocketChannel _ = SocketChannel.open(address)) {
            return true;
          } catch (IOException notYet) {
            return false;
          }
        });
  }

  /** Skips the test unless all of them are installed. */
  static void need(String... programs) {
    Missing.unlessInstalled(programs);
  }

  /** Starts a program, with standard output in {@code out} and errors in a file beside it. */
  static Process start(Path out, String... command) throws IOException {
    need(command[0]);
    String[] found = command.clone();
    found[0] = Missing.find(command[0]).orElseThrow().toString();
    ProcessBuilder builder =
        new ProcessBuilder(found)
            .redirectInput(new File("/dev/null"))
            .redirectOutput(out.toFile())
            .redirectError(new File(out + ".err"));
    builder.environment().put("PATH", Missing.path());
    return builder.start();
  }

  /** Runs a program to its end. */
  static Result run(String... command) throws IOException, InterruptedException {
    Path out = Files.createTempFile("nbd-tool-", ".out");
    try {
      return result(start(out, command), out);
    } finally {
      Files.deleteIfExists(out);
      Files.deleteIfExists(Path.of(out + ".err"));
    }
  }

  /** Waits for a program's end. */
  static Result result(Process process, Path out) throws IOException, InterruptedException {
    if (!process.waitFor(HANG_SECONDS, TimeUnit.SECONDS)) {
      process.destroyForcibly();
      fail("it hangs: " + Files.readString(out) + Files.readString(Path.of(out + ".err")));
    }
    return new Result(
        process.exitValue(),
        new String(Files.readAllBytes(out), UTF_8),
        new String(Files.readAllBytes(Path.of(out + ".err")), UTF_8));
  }

  /** Makes fio's command for jobs on an NBD URI, which verify the data that they have written. */
  static String[] fio(String uri, String... options) {
    Stream<String> command =
        Stream.of(
            "fio",
            "--name=job",
            "--ioengine=nbd",
            "--uri=" + uri,
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0");
    return Stream.concat(command, Arrays.stream(options)).toArray(String[]::new);
  }

  /** Runs commands of qemu-io on an NBD URI; each has to succeed. */
  static void qemuIo(String uri, String... commands) throws IOException, InterruptedException {
    Stream<String> options = Stream.of("qemu-io", "-f", "raw");
    Stream<String> each = Arrays.stream(commands).flatMap(command -> Stream.of("-c", command));
    Result result =
        run(Stream.of(options, each, Stream.of(uri)).flatMap(s -> s).toArray(String[]::new)).ok();
    List<String> wrong =
        result
            .out()
            .lines()
            .filter(line -> line.contains("fail") || line.contains("rror"))
            .toList();
    assertThat(wrong).as(result.out()).isEmpty();
  }
}
