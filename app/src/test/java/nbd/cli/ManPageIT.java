package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import org.junit.jupiter.api.Test;

/** The manual page that is committed says what the commands say. */
final class ManPageIT {
  @Test
  void theManualPageIsUpToDate() {
    assertThat(Path.of("../man/nbd-multiconn.1"))
        .as("the manual page; refresh it with: mvn -q -Pman -pl app package")
        .hasSameTextualContentAs(Path.of("target/man/nbd-multiconn.1"));
  }
}
