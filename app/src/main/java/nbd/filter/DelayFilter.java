package nbd.filter;

import java.io.IOException;
import java.time.Duration;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/** Makes storage slow: each call sleeps before it goes on. For experiments. */
public final class DelayFilter extends FilterBackend {
  private final Duration read;
  private final Duration write;
  private final Duration flush;

  /**
   * Wraps a backend.
   *
   * @param read before each read, read-ahead and question for extents
   * @param write before each write, trim and zero
   * @param flush before each flush
   */
  public DelayFilter(Backend next, Duration read, Duration write, Duration flush) {
    super(next);
    this.read = read;
    this.write = write;
    this.flush = flush;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return new DelayHandle(next.open(exportName, readOnly));
  }

  private static void sleep(Duration time) throws IOException {
    if (!time.isPositive()) {
      return;
    }
    try {
      Thread.sleep(time);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("the delay was interrupted", e);
    }
  }

  private final class DelayHandle extends FilterHandle {
    DelayHandle(Handle next) {
      super(next);
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      Duration delay =
          switch (operation.command()) {
            case FLUSH -> flush;
            case WRITE, TRIM, WRITE_ZEROES -> write;
            default -> read;
          };
      if (delay.isPositive() && patience != Patience.WAIT) {
        return Outcome.DECLINED;
      }
      sleep(delay);
      return next.perform(operation, patience, end);
    }
  }
}
