package nbd.server;

import java.util.concurrent.atomic.AtomicLong;

/**
 * Bounds the bytes that requests of all connections hold for one purpose. Nobody ever waits for
 * them: who gets none has another way.
 *
 * <p>Invariant: what is taken and not given back is never more than the bound.
 */
final class MemoryBudget {
  private final long bound;
  private final AtomicLong taken = new AtomicLong();

  /** Gives out up to so many bytes at a time. */
  MemoryBudget(long bound) {
    this.bound = bound;
  }

  /** Takes so many bytes if they are there. */
  boolean tryTake(long bytes) {
    return tryTake(bytes, bound);
  }

  /** Takes so many bytes if half of the budget is left then. */
  boolean tryTakePlenty(long bytes) {
    return tryTake(bytes, bound / 2);
  }

  private boolean tryTake(long bytes, long most) {
    long before = taken.get();
    while (bytes <= most - before) {
      long witness = taken.compareAndExchange(before, before + bytes);
      if (witness == before) {
        return true;
      }
      before = witness;
    }
    return false;
  }

  /** Gives back what was taken. */
  void giveBack(long bytes) {
    taken.addAndGet(-bytes);
  }

  /** The bytes that are out. */
  long taken() {
    return taken.get();
  }
}
