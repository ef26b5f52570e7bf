package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import org.junit.jupiter.api.Test;

/** The committed manual page, which must be the one that the build makes. */
final class ManPageIT {
  @Test
  void theManualPageIsUpToDate() {
    assertThat(Path.of("../man/nbd-multiconn.1"))
        .as("the manual page; refresh it with: mvn -q -Pman -pl app package")
        .hasSameTextualContentAs(Path.of("target/man/nbd-multiconn.1"));
  }
}
