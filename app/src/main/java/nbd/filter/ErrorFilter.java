package nbd.filter;

import java.io.IOException;
import java.util.concurrent.atomic.AtomicLong;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/**
 * Makes storage fail now and then: such a call throws instead of going on. For experiments. Which
 * of the calls of a kind fail depends on the seed and their number only.
 */
public final class ErrorFilter extends FilterBackend {
  private final Failing read;
  private final Failing write;
  private final Failing flush;

  /**
   * Wraps a backend.
   *
   * @param read for reads and read-aheads
   * @param write for writes, trims and zeroes
   * @param flush for flushes
   * @param seed for the choice of the calls that fail
   */
  public ErrorFilter(Backend next, ErrorRate read, ErrorRate write, ErrorRate flush, long seed) {
    super(next);
    this.read = new Failing("read", read, seed);
    this.write = new Failing("write", write, seed + 1);
    this.flush = new Failing("flush", flush, seed + 2);
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return new ErrorHandle(next.open(exportName, readOnly));
  }

  /** One kind of call. */
  private static final class Failing {
    private final String what;
    private final ErrorRate rate;
    private final long seed;
    private final AtomicLong calls = new AtomicLong();

    Failing(String what, ErrorRate rate, long seed) {
      this.what = what;
      this.rate = rate;
      this.seed = seed;
    }

    boolean never() {
      return rate.rate() == 0;
    }

    void call() throws NbdException {
      if (never()) {
        return;
      }
      long number = calls.incrementAndGet();
      // 53 random bits make a double from 0 (inclusive) to 1 (exclusive).
      double draw = (mix(seed * 0x9e3779b97f4a7c15L + number) >>> 11) * 0x1.0p-53;
      if (draw < rate.rate()) {
        throw new NbdException(
            rate.error(), "%s %d fails because --error-%s says so".formatted(what, number, what));
      }
    }

    /** Spreads consecutive numbers over all 64 bits (the finalizer of SplitMix64). */
    private static long mix(long number) {
      long mixed = number * 0x9e3779b97f4a7c15L;
      mixed = (mixed ^ (mixed >>> 30)) * 0xbf58476d1ce4e5b9L;
      mixed = (mixed ^ (mixed >>> 27)) * 0x94d049bb133111ebL;
      return mixed ^ (mixed >>> 31);
    }
  }

  private final class ErrorHandle extends FilterHandle {
    ErrorHandle(Handle next) {
      super(next);
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      Failing failing =
          switch (operation.command()) {
            case FLUSH -> flush;
            case WRITE, TRIM, WRITE_ZEROES -> write;
            default -> read;
          };
      if (!failing.never()) {
        if (patience != Patience.WAIT) {
          // Each operation is drawn once, so one that may still be declined below must not be.
          return Outcome.DECLINED;
        }
        failing.call();
      }
      return next.perform(operation, patience, end);
    }
  }
}
