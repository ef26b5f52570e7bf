package nbd.server;

import java.util.concurrent.Semaphore;

/**
 * Bounds the bytes that the slow and the large requests of all connections hold, so that no client
 * can take the server's memory by asking. Who wants more than is left waits its turn, in order.
 */
final class MemoryBudget {
  /** Counted in pages, so that a semaphore's int is enough for 8 TiB. */
  private static final int UNIT_SHIFT = 12;

  private final int all;
  private final Semaphore units;

  /** Gives out up to so many bytes at a time; at least what one connection may hold. */
  MemoryBudget(long bytes) {
    long enough = Math.max(bytes, InFlight.MAXIMUM_BYTES);
    all = (int) Math.min(enough >> UNIT_SHIFT, Integer.MAX_VALUE);
    units = new Semaphore(all, true);
  }

  /** Takes so many bytes if they are there and nobody waits. */
  boolean tryTake(int bytes) {
    try {
      return units.tryAcquire(units(bytes), 0, java.util.concurrent.TimeUnit.NANOSECONDS);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /** Takes so many bytes, and waits for them. */
  void take(int bytes) {
    units.acquireUninterruptibly(units(bytes));
  }

  /** Gives back what was taken. */
  void giveBack(int bytes) {
    units.release(units(bytes));
  }

  /** The bytes that are out, in whole pages. */
  long taken() {
    return (long) (all - units.availablePermits()) << UNIT_SHIFT;
  }

  private static int units(int bytes) {
    return (int) (((long) bytes + (1 << UNIT_SHIFT) - 1) >> UNIT_SHIFT);
  }
}
