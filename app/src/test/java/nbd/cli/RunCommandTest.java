package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import nbd.testing.Eventually;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The end of the command of {@code --run}. */
@Timeout(300)
final class RunCommandTest {
  @TempDir private Path directory;

  private RunCommand begun(String command) throws Exception {
    Path mark = directory.resolve("mark");
    RunCommand run = RunCommand.start(command, Map.of("mark", mark.toString()));
    Eventually.isTrue("it has begun", () -> Files.exists(mark));
    return run;
  }

  @Test
  void aCommandThatIgnoresSigtermIsKilled() throws Exception {
    RunCommand run = begun("trap '' TERM; echo begun > \"$mark\"; while :; do sleep 1; done");
    run.end(Duration.ofMillis(300));
    assertThat(run.waitFor()).isEqualTo(128 + 9);
  }

  @Test
  void aCommandThatCleansUpIsWaitedFor() throws Exception {
    RunCommand run =
        begun("trap 'sleep 0.2; exit 5' TERM; echo begun > \"$mark\"; while :; do sleep 0.1; done");
    run.end(Duration.ofSeconds(30));
    assertThat(run.waitFor()).isEqualTo(5);
  }

  @Test
  void aCommandThatHasEndedIsNotWaitedFor() throws Exception {
    RunCommand run = begun("echo begun > \"$mark\"; exit 4");
    assertThat(run.waitFor()).isEqualTo(4);
    run.end(Duration.ofDays(1));
  }
}
