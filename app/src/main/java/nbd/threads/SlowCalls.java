package nbd.threads;

import java.util.concurrent.atomic.AtomicLong;

/**
 * Remembers whether calls have to wait at the moment that mostly do not: reads and writes of the
 * page cache take microseconds, until the kernel holds a writer up to write back what is dirty, or
 * the storage hangs. No call tells beforehand.
 *
 * <p>After a slow call the next ones are handed to other threads for a while. So are all that come
 * while one has been running for too long; and until one has turned out to be quick, one at a time
 * is tried. So a file that hangs has a few callers blocked, mostly a single one.
 *
 * <p>Any thread may call. Updates of quick calls may overwrite each other, which costs one more
 * slow call. Invariant: {@code running} is {@link #NONE}, or the begin of a call that has not
 * ended; a call that found it otherwise while none was known to be quick has not begun.
 */
final class SlowCalls implements CallTimes {
  /** Longer than a thread waits for its turn on a busy processor. */
  private static final long SLOW_NANOS = 20_000_000;

  private static final long SHORTEST_HOLD_NANOS = 250_000_000;
  private static final long LONGEST_HOLD_NANOS = 8_000_000_000L;

  private static final long NONE = Long.MIN_VALUE;

  /** When one of the calls that run has begun. */
  private final AtomicLong running = new AtomicLong(NONE);

  /** Whether the next call may be slow: at first, and after one that was. */
  private volatile boolean suspected = true;

  private volatile long heldUntil;

  /** Doubled when the first call after a hold is slow again. */
  private volatile long hold = SHORTEST_HOLD_NANOS;

  /**
   * Knows nothing yet.
   *
   * @param now in {@link System#nanoTime}'s count
   */
  SlowCalls(long now) {
    heldUntil = now - 2 * SHORTEST_HOLD_NANOS;
  }

  @Override
  public boolean mayBegin(long now) {
    if (now - heldUntil < 0) {
      return false;
    }
    if (suspected) {
      return running.compareAndSet(NONE, now);
    }
    long since = running.get();
    if (since == NONE) {
      running.lazySet(now);
      return true;
    }
    return now - since <= SLOW_NANOS;
  }

  @Override
  public void ended(long began, long now) {
    if (running.get() == began) {
      running.lazySet(NONE);
    }
    if (now - began > SLOW_NANOS) {
      boolean again = began - heldUntil < SHORTEST_HOLD_NANOS;
      hold = again ? Math.min(2 * hold, LONGEST_HOLD_NANOS) : SHORTEST_HOLD_NANOS;
      heldUntil = now + hold;
      suspected = true;
    } else if (suspected && began - heldUntil >= 0) {
      suspected = false;
    }
  }
}
