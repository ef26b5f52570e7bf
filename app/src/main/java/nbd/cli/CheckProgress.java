package nbd.cli;

import java.io.Console;
import java.time.Duration;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import nbd.check.Examination;
import nbd.check.Verdict.Counts;

/** The line on a terminal that shows how far a check is; there is none without a terminal. */
final class CheckProgress implements AutoCloseable {
  private static final long PERIOD_MILLIS = 500;
  private static final String ERASE_LINE = "\r\u001b[K";

  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(Thread.ofPlatform().daemon().factory());
  private final Examination examination;
  private final Duration duration;
  private final boolean isShown;
  private long requestsBefore;

  /**
   * Shows the line from now on.
   *
   * @param duration that the check will take
   */
  CheckProgress(Examination examination, Duration duration) {
    this.examination = examination;
    this.duration = duration;
    this.isShown = Optional.ofNullable(System.console()).filter(Console::isTerminal).isPresent();
    if (isShown) {
      Future<?> _ =
          timer.scheduleAtFixedRate(
              this::print, PERIOD_MILLIS, PERIOD_MILLIS, TimeUnit.MILLISECONDS);
    }
  }

  private void print() {
    Counts counts = examination.counts();
    long perSecond = (counts.requests() - requestsBefore) * 1000 / PERIOD_MILLIS;
    requestsBefore = counts.requests();
    System.out.print(ERASE_LINE + line(counts, perSecond, duration.minus(counts.time())));
    System.out.flush();
  }

  /** Makes the line: the requests a second lately, and the counts so far. */
  static String line(Counts counts, long perSecond, Duration left) {
    String restarts = counts.restarts() == 0 ? "" : counts.restarts() + " restarts, ";
    return String.format(
        Locale.ROOT,
        "%,d requests/s, %,d sectors read, %s%d s left",
        perSecond,
        counts.readSectors(),
        restarts,
        Math.max(0, left.toSeconds()));
  }

  /** Erases the line. */
  @Override
  public void close() {
    timer.close();
    if (isShown) {
      System.out.print(ERASE_LINE);
    }
  }
}
