package nbd.filter;

import java.io.IOException;
import java.time.Duration;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/** Storage made slow for experiments: operations sleep before they go on. */
public final class DelayFilter extends FilterBackend {
  private final ByKind<Duration> delays;

  /** Delays operations by their kind; a kind with a delay of zero is not delayed. */
  public DelayFilter(Backend next, Duration read, Duration write, Duration flush) {
    super(next);
    this.delays = new ByKind<>(read, write, flush);
  }

  @Override
  protected Handle wrap(Handle handle, String exportName) {
    return new FilterHandle(handle) {
      @Override
      public Outcome perform(Operation operation, Patience patience, Completion end)
          throws IOException {
        Duration delay = delays.of(operation.command());
        if (delay.isPositive()) {
          if (patience != Patience.WAIT) {
            return Outcome.DECLINED;
          }
          sleep(delay);
        }
        return next.perform(operation, patience, end);
      }
    };
  }

  private static void sleep(Duration time) throws IOException {
    try {
      Thread.sleep(time);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("the delay was interrupted", e);
    }
  }
}
