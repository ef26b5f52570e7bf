package nbd.check;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/**
 * One random history of a test.
 *
 * @param violation of the promise, which ends it
 * @param incoherence the first violation of coherence only
 * @param readSectors the number of sectors that were read and judged
 * @param events the last of them up to the violation, oldest first
 */
public record RandomHistory(
    Optional<Violation> violation,
    Optional<Violation> incoherence,
    long readSectors,
    List<Event> events) {
  private static final int CONNECTIONS = 4;

  /** Drives a history with choices by a seed. */
  public static RandomHistory drive(Target target, long seed, Duration duration)
      throws IOException {
    Driver driver = new Driver(target, CONNECTIONS, seed);
    driver.drive(duration);
    return new RandomHistory(
        driver.violation().map(Driver.Found::violation),
        driver.incoherence().map(Driver.Found::violation),
        driver.counts().readSectors(),
        driver.violation().map(Driver.Found::history).orElseGet(driver::recent));
  }
}
