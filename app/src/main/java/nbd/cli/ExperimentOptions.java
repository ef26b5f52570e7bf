package nbd.cli;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;
import nbd.filter.ConnectionCacheFilter;
import nbd.filter.DelayFilter;
import nbd.filter.ErrorFilter;
import nbd.filter.ErrorRate;
import nbd.filter.SerializeFilter;
import nbd.storage.Backend;
import nbd.storage.ThreadModel;
import org.tinylog.Logger;
import picocli.CommandLine.Option;

/** The options of serve that make the storage slow, faulty or stale, to test clients and modes. */
final class ExperimentOptions {
  @Option(
      names = "--thread-model",
      paramLabel = "MODEL",
      defaultValue = "parallel",
      description =
          "Restrict which requests run at the same time (default: what the backend can do): one of"
              + " ${COMPLETION-CANDIDATES}.")
  private ThreadModel threadModel = ThreadModel.PARALLEL;

  @Option(
      names = "--connection-cache",
      description =
          "Each connection caches what it reads and writes for itself, until its own flush.")
  private boolean connectionCache;

  @Option(
      names = "--delay-read",
      paramLabel = "DURATION",
      defaultValue = "0",
      description = "Delay each read by this long.")
  private Duration delayRead = Duration.ZERO;

  @Option(
      names = "--delay-write",
      paramLabel = "DURATION",
      defaultValue = "0",
      description = "Delay each write, trim and zero by this long.")
  private Duration delayWrite = Duration.ZERO;

  @Option(
      names = "--delay-flush",
      paramLabel = "DURATION",
      defaultValue = "0",
      description = "Delay each flush by this long.")
  private Duration delayFlush = Duration.ZERO;

  @Option(
      names = "--error-read",
      paramLabel = "RATE[:ERRNO]",
      defaultValue = "0",
      description =
          "This fraction of reads fails, from 0 to 1, with this error (default: EIO),"
              + " e.g. 0.01:EIO.")
  private ErrorRate errorRead = ErrorRate.NONE;

  @Option(
      names = "--error-write",
      paramLabel = "RATE[:ERRNO]",
      defaultValue = "0",
      description = "This fraction of writes, trims and zeroes fails.")
  private ErrorRate errorWrite = ErrorRate.NONE;

  @Option(
      names = "--error-flush",
      paramLabel = "RATE[:ERRNO]",
      defaultValue = "0",
      description = "This fraction of flushes fails.")
  private ErrorRate errorFlush = ErrorRate.NONE;

  ThreadModel threadModel() {
    return threadModel;
  }

  /** Puts the filters that the options ask for in front of a backend. */
  Backend around(Backend backend) {
    Backend made = backend;
    if (errorRead.rate() > 0 || errorWrite.rate() > 0 || errorFlush.rate() > 0) {
      long seed = ThreadLocalRandom.current().nextLong();
      Logger.debug("seed of the injected errors: {}", seed);
      made = new ErrorFilter(made, errorRead, errorWrite, errorFlush, seed);
    }
    if (delayRead.isPositive() || delayWrite.isPositive() || delayFlush.isPositive()) {
      made = new DelayFilter(made, delayRead, delayWrite, delayFlush);
    }
    if (connectionCache) {
      made = new ConnectionCacheFilter(made, ConnectionCacheFilter.DEFAULT_CAPACITY);
    }
    return threadModel.and(made.threadModel()) == ThreadModel.PARALLEL
        ? made
        : new SerializeFilter(made, threadModel);
  }
}
