package nbd.launcher;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The jar as users get it, started on a Java that is too old for it. */
@Timeout(300)
final class LauncherIT {
  private static final Path JAR = Path.of(System.getProperty("nbd.jar"));

  @Test
  void theJarRunsOnAnOldJava() throws Exception {
    Process version = OldJava.command(JAR, List.of(), "--version").start();
    assertThat(new String(version.getInputStream().readAllBytes(), UTF_8))
        .startsWith("nbd-multiconn " + System.getProperty("nbd.version") + "\n");
    assertThat(version.waitFor()).isEqualTo(0);
  }

  @Test
  void wrongUsageIsStatusTwo() throws Exception {
    Process wrong = OldJava.command(JAR, List.of(), "--no-such-option").start();
    assertThat(new String(wrong.getErrorStream().readAllBytes(), UTF_8))
        .contains("--no-such-option");
    assertThat(wrong.waitFor()).isEqualTo(2);
  }
}
