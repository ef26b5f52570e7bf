package nbd.cli;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import nbd.testing.Eventually;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The end of the program after an unexpected failure: in order, with status 1 and one line. */
@Timeout(300)
final class FailureTest {
  @TempDir private Path directory;

  private Process probe(String... arguments) throws IOException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(List.of("-XX:TieredStopAtLevel=1", "--enable-native-access=ALL-UNNAMED"));
    command.addAll(List.of("-cp", System.getProperty("java.class.path")));
    command.add(ServiceProbe.class.getName());
    command.add(directory.resolve("pid").toString());
    command.addAll(List.of(arguments));
    return new ProcessBuilder(command).start();
  }

  private void endsInOrder(Process process) throws Exception {
    CompletableFuture<Process> _ =
        process
            .onExit()
            .orTimeout(2, TimeUnit.MINUTES)
            .whenComplete((ended, late) -> process.destroyForcibly());
    String said = new String(process.getErrorStream().readAllBytes(), UTF_8);
    assertThat(process.waitFor()).as(said).isEqualTo(1);
    assertThat(said).hasLineCount(1).startsWith("nbd-multiconn: ");
    assertThat(directory).as("the pid file is removed").isEmptyDirectory();
  }

  @ParameterizedTest
  @ValueSource(classes = {StackOverflowError.class, NoClassDefFoundError.class})
  void anErrorWhileAcceptingEndsTheServer(Class<?> failure) throws Exception {
    endsInOrder(probe(failure.getName()));
  }

  @Test
  void anErrorWhileAcceptingEndsTheCommandThatRuns() throws Exception {
    endsInOrder(probe(StackOverflowError.class.getName(), "exec sleep 1000"));
  }

  /** Memory may be free again soon, and other clients are being served. */
  @Test
  void aLackOfMemoryWhileAcceptingEndsNothing() throws Exception {
    Process process = probe(OutOfMemoryError.class.getName());
    try {
      Eventually.isTrue("it serves", () -> Files.exists(directory.resolve("pid")));
      process.destroy();
      assertThat(process.waitFor(2, TimeUnit.MINUTES)).isTrue();
      assertThat(process.exitValue()).isZero();
    } finally {
      process.destroyForcibly();
    }
  }

  @Test
  void aFailureThatTheJdkHasWrappedIsSaidInTheSystemsWords() {
    Error wrapped = new ExceptionInInitializerError(new IOException("Too many open files"));
    assertThat(Failure.words(wrapped)).isEqualTo("Too many open files");
    assertThat(Failure.words(new IOException("one\ntwo"))).isEqualTo("one");
  }
}
