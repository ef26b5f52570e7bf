package nbd.testing;

import static org.junit.jupiter.api.Assertions.fail;
import static org.junit.jupiter.api.Assumptions.abort;

import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * The end of a test that needs something which this machine does not have: it is skipped with the
 * reason; with NBD_REQUIRE_TOOLS=1 in the environment it fails.
 */
public final class Missing {
  private Missing() {}

  /** Ends the test for a reason. It never returns; {@code throw} tells the compiler so. */
  public static RuntimeException because(String why) {
    return "1".equals(System.getenv("NBD_REQUIRE_TOOLS")) ? fail(why) : abort(why);
  }

  /** Ends the test unless all these programs are installed. */
  public static void unlessInstalled(String... programs) {
    for (String program : programs) {
      if (find(program).isEmpty()) {
        throw because(program + " is not installed");
      }
    }
  }

  /** Finds an installed program. */
  public static Optional<Path> find(String program) {
    return Stream.of(path().split(File.pathSeparator))
        .map(directory -> Path.of(directory).resolve(program))
        .filter(Files::isExecutable)
        .findFirst();
  }

  /**
   * Returns the search path, Debian's programs first: nbdsh needs the python3 that its package is
   * for.
   */
  public static String path() {
    return String.join(File.pathSeparator, "/usr/bin", "/usr/sbin", System.getenv("PATH"));
  }
}
