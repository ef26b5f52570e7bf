package nbd.cli;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import nbd.testing.Eventually;
import nbd.testing.Missing;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The environment variables of a service manager, and the watchdog's signs of life. */
@Timeout(300)
final class ServiceManagerTest {
  private static final String OWN = Long.toString(ProcessHandle.current().pid());

  /** Prints a line for each message. */
  private static final String RECEIVER =
      """
      import socket, sys
      s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
      s.bind(sys.argv[1])
      while True: print(s.recv(4096).decode().replace("\\n", " "), flush=True)
      """;

  @TempDir private Path directory;
  private Path out;
  private Process receiver;

  private static List<String> lines(Path file) {
    try {
      return Files.readString(file, UTF_8).lines().toList();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  @BeforeEach
  void receive() throws Exception {
    Missing.unlessInstalled("python3");
    out = directory.resolve("out");
    Path socket = directory.resolve("socket");
    String python = Missing.find("python3").orElseThrow().toString();
    receiver =
        new ProcessBuilder(python, "-c", RECEIVER, socket.toString())
            .redirectOutput(out.toFile())
            .start();
    Eventually.isTrue("it is bound", () -> Files.exists(socket));
  }

  @AfterEach
  void end() throws InterruptedException {
    receiver.destroyForcibly();
    assertThat(receiver.waitFor(2, TimeUnit.MINUTES)).isTrue();
  }

  private ServiceManager manager(String watchdogPid) {
    return ServiceManager.of(
        Map.of(
            "NOTIFY_SOCKET",
            directory.resolve("socket").toString(),
            "WATCHDOG_PID",
            watchdogPid,
            "WATCHDOG_USEC",
            "20000"));
  }

  private boolean isSaid(String line) {
    return lines(out).contains(line);
  }

  @Test
  void theWatchdogHearsNothingOfAServerThatDoesNotWork() throws Exception {
    AtomicBoolean works = new AtomicBoolean(true);
    AtomicReference<String> status = new AtomicReference<>("well");
    manager(OWN).watch(status::get, works::get);
    Eventually.isTrue("it lives", () -> isSaid("WATCHDOG=1"));
    assertThat(lines(out).getFirst()).isEqualTo("STATUS=well WATCHDOG=1");
    works.set(false);
    for (String now : List.of("ill", "worse", "still")) {
      status.set(now);
      Eventually.isTrue("it is told", () -> isSaid("STATUS=" + now));
    }
    assertThat(lines(out)).endsWith("STATUS=ill", "STATUS=worse", "STATUS=still");
  }

  @Test
  void aWatchdogForAnotherProcessIsNotFed() throws Exception {
    ServiceManager manager = manager("1");
    AtomicReference<String> status = new AtomicReference<>("well");
    manager.watch(status::get, () -> true);
    Eventually.isTrue("the status is told", () -> isSaid("STATUS=well"));
    manager.ready();
    Eventually.isTrue("it is ready", () -> isSaid("READY=1"));
    assertThat(lines(out)).containsExactly("STATUS=well", "READY=1");
  }

  @ParameterizedTest
  @CsvSource({"'', 1", "1, 1", "x, 1", "@OWN@, 0"})
  void withoutSocketsForThisProcessThereAreNone(String pid, String count) {
    Map<String, String> variables =
        Map.of("LISTEN_PID", pid.replace("@OWN@", OWN), "LISTEN_FDS", count);
    assertThat(SocketActivation.of(variables)).isEmpty();
    assertThat(SocketActivation.of(Map.of())).isEmpty();
  }

  @ParameterizedTest
  @CsvSource({
    "'', , LISTEN_FDS",
    "-1, , LISTEN_FDS",
    "x, , LISTEN_FDS",
    "2, a, LISTEN_FDNAMES",
    "2, a:b:c, LISTEN_FDNAMES"
  })
  void wrongVariablesAreSaidToBe(String count, String names, String wrong) {
    Map<String, String> variables =
        names == null
            ? Map.of("LISTEN_PID", OWN, "LISTEN_FDS", count)
            : Map.of("LISTEN_PID", OWN, "LISTEN_FDS", count, "LISTEN_FDNAMES", names);
    assertThatThrownBy(() -> SocketActivation.of(variables))
        .isInstanceOf(UsageException.class)
        .hasMessageStartingWith(wrong);
  }
}
