package nbd.threads;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;

/**
 * The calls of one kind on one file that a connection's thread makes itself, because they are
 * expected to be short and there is a permit to block its carrier ({@link Carriers}). Any other
 * call is for {@link BlockingCalls#run}.
 *
 * <p>Measured on a busy machine: with every call handed to another thread, 4 KiB reads and writes
 * of cached data reached 0.4 to 0.5 of the requests a second, with three to six times the processor
 * time (1 connection x depth 1, and 4 x 8).
 *
 * <p>Calls are expected to be short while the latest took little time on average, and none has been
 * running for long. After that, calls are refused for a while, and then one at a time is tried
 * until one was short. If it was slow again, the next while is twice as long. So a file that hangs
 * has few callers blocked, mostly one: no call tells beforehand whether the kernel will hold the
 * writer up to write back dirty pages, or the storage will not answer.
 *
 * <p>Any thread may call. Updates may overwrite each other, which costs one more slow call.
 * Invariant: {@code running} is {@link #NONE}, or the begin of a call that has not ended. While
 * calls are {@code suspected}, a call begins only if it is NONE.
 */
public final class ShortCalls {
  /** The result of {@link #begin} where no call has begun. */
  public static final int REFUSED = Carriers.NONE;

  /** The latest call counts in the average as one of so many. */
  private static final int WEIGHT = 8;

  static final Duration SHORTEST_HOLD = Duration.ofMillis(250);
  static final Duration LONGEST_HOLD = Duration.ofSeconds(8);

  private static final long NONE = Long.MIN_VALUE;

  private final Carriers carriers;
  private final long limit;

  /** The begin of one of the calls that run. */
  private final AtomicLong running = new AtomicLong(NONE);

  /** The average in nanoseconds, to which calls add nothing that take hardly any time. */
  private volatile long average;

  /** True while the next call may be slow: at first, and after calls were slow. */
  private volatile boolean suspected = true;

  private volatile long heldUntil;
  private volatile long hold = SHORTEST_HOLD.toNanos();

  /**
   * Knows nothing of the calls yet.
   *
   * @param limit the longest average; a single call may take {@link #WEIGHT} times as long
   */
  ShortCalls(Carriers carriers, Duration limit) {
    this(carriers, limit, System.nanoTime());
  }

  /** Begins at a test's own time. */
  ShortCalls(Carriers carriers, Duration limit, long now) {
    this.carriers = carriers;
    this.limit = limit.toNanos();
    this.heldUntil = now - 2 * SHORTEST_HOLD.toNanos();
  }

  /**
   * Begins a call on this thread, which does not wait before {@link #end} but in that call. Never
   * waits itself.
   *
   * @return for {@link #end}; or {@link #REFUSED}
   */
  public int begin() {
    long now = System.nanoTime();
    int permit =
        Thread.currentThread().isVirtual() ? carriers.enter(now) : carriers.enterOnPlatform(now);
    if (permit != REFUSED && !mayBegin(now)) {
      carriers.leave(permit);
      return REFUSED;
    }
    return permit;
  }

  /** Ends a call that has begun, however it went. */
  public void end(int begun) {
    ended(carriers.leave(begun), System.nanoTime());
  }

  /** Says whether calls have been short lately; for tests. */
  boolean areExpected() {
    return !suspected;
  }

  boolean mayBegin(long now) {
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
    return now - since <= WEIGHT * limit;
  }

  void ended(long began, long now) {
    if (running.get() == began) {
      running.lazySet(NONE);
    }
    long took = now - began;
    long before = average;
    // Mostly nothing changes, and no cache line that connections share.
    long after = before + ((took < limit / WEIGHT ? 0 : took) - before) / WEIGHT;
    if (after > limit) {
      boolean again = began - heldUntil < SHORTEST_HOLD.toNanos();
      hold = again ? Math.min(2 * hold, LONGEST_HOLD.toNanos()) : SHORTEST_HOLD.toNanos();
      heldUntil = now + hold;
      suspected = true;
      average = 0;
      return;
    }
    if (after != before) {
      average = after;
    }
    if (suspected && began - heldUntil >= 0) {
      suspected = false;
    }
  }
}
