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
 * Storage made unreliable for experiments: a part of the operations fails instead of going on. The
 * choice of the operations of a kind depends on nothing but the seed and their number.
 */
public final class ErrorFilter extends FilterBackend {
  private final ByKind<Failing> failing;

  /** Lets operations fail by their kind. */
  public ErrorFilter(Backend next, ErrorRate read, ErrorRate write, ErrorRate flush, long seed) {
    super(next);
    this.failing =
        new ByKind<>(
            new Failing("read", read, seed),
            new Failing("write", write, seed + 1),
            new Failing("flush", flush, seed + 2));
  }

  @Override
  protected Handle wrap(Handle handle, String exportName) {
    return new FilterHandle(handle) {
      @Override
      public Outcome perform(Operation operation, Patience patience, Completion end)
          throws IOException {
        Failing kind = failing.of(operation.command());
        if (kind.rate.rate() > 0) {
          if (patience != Patience.WAIT) {
            // An operation is drawn once, and this one might still be declined below.
            return Outcome.DECLINED;
          }
          kind.draw();
        }
        return next.perform(operation, patience, end);
      }
    };
  }

  /** One kind of operation. */
  private static final class Failing {
    private final String name;
    private final ErrorRate rate;
    private final long seed;
    private final AtomicLong operations = new AtomicLong();

    Failing(String name, ErrorRate rate, long seed) {
      this.name = name;
      this.rate = rate;
      this.seed = seed;
    }

    void draw() throws NbdException {
      long number = operations.incrementAndGet();
      // 53 random bits make a double from 0 (inclusive) to 1 (exclusive).
      double draw = (mix(seed * 0x9e3779b97f4a7c15L + number) >>> 11) * 0x1.0p-53;
      if (draw < rate.rate()) {
        throw new NbdException(
            rate.error(), "%s %d fails because --error-%s says so".formatted(name, number, name));
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
}
