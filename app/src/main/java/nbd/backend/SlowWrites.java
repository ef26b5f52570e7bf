package nbd.backend;

/**
 * Remembers whether writes to a file have to wait at the moment. A write into the page cache takes
 * microseconds, until the kernel holds the writer up to write back what is dirty; no call tells
 * beforehand. So writes are made at once by the connection's thread as long as they turn out to be
 * quick; after a slow one they are handed to other threads for a while.
 *
 * <p>Any thread may call; an update that is lost costs one more slow write.
 */
final class SlowWrites {
  /** Longer than a thread waits for its turn on a busy processor. */
  private static final long SLOW_NANOS = 20_000_000;

  private static final long SHORTEST_HOLD_NANOS = 250_000_000;
  private static final long LONGEST_HOLD_NANOS = 8_000_000_000L;

  private volatile long heldUntil = System.nanoTime();

  /** Doubled when the first write after a hold is slow again. */
  private volatile long hold = SHORTEST_HOLD_NANOS;

  /** Whether a write should be handed on at this time, in {@link System#nanoTime}'s count. */
  boolean expected(long now) {
    return now - heldUntil < 0;
  }

  /** Takes note of a write's begin and end. */
  void wrote(long begin, long end) {
    if (end - begin > SLOW_NANOS) {
      boolean again = begin - heldUntil < SHORTEST_HOLD_NANOS;
      hold = again ? Math.min(2 * hold, LONGEST_HOLD_NANOS) : SHORTEST_HOLD_NANOS;
      heldUntil = end + hold;
    }
  }
}
