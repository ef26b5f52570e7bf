package nbd.multiconn;

import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import java.util.concurrent.atomic.AtomicLongFieldUpdater;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/**
 * The reads of one handle: the epoch of the oldest data that it may have cached ({@link
 * FlushScope}), and the number of reads in flight.
 *
 * <p>A handle's reads fall into two phases. A flush turns to the other phase; then the reads of the
 * phase before end, and no read joins them, so that a flush that waits for them waits for a closed
 * set, however many reads come after it. When they have ended, and the flush that started
 * afterwards has succeeded, the handle holds nothing of that phase any more.
 *
 * <p>A read counts itself in a phase and looks again whether it is still the current one, before
 * anything else. So a phase that is not current and has no reads in flight gets none until a flush
 * turns back to it, and only one flush at a time does so.
 */
final class ReadMarks extends Padding {
  private static final long NONE = Long.MAX_VALUE;

  private final Phase one = new Phase();
  private final Phase two = new Phase();
  private volatile Phase current = one;
  private volatile @Nullable Thread drainer;

  final Enrolment enrolment = new Enrolment();

  /** One of the two sets of reads. */
  static final class Phase extends Padding {
    private static final AtomicIntegerFieldUpdater<Phase> IN_FLIGHT =
        AtomicIntegerFieldUpdater.newUpdater(Phase.class, "inFlight");
    private static final AtomicLongFieldUpdater<Phase> SINCE =
        AtomicLongFieldUpdater.newUpdater(Phase.class, "since");

    private volatile int inFlight;

    /** The epoch in which the first read began that is not flushed; or none. */
    private volatile long since = NONE;

    /** Says whether the phase has no mark yet. */
    boolean isEmpty() {
      return since == NONE;
    }

    /**
     * Notes the epoch in which the phase's first read begins. If another read was faster, its note
     * does for this one too: this one has fetched nothing yet.
     */
    void note(long epoch) {
      SINCE.compareAndSet(this, NONE, epoch);
    }

    /** Called when a flush has succeeded that had started after the last read had ended. */
    void clear() {
      since = NONE;
    }
  }

  /** Counts a read that begins; returns its phase, for {@link #leave}. */
  Phase enter() {
    while (true) {
      Phase entered = current;
      Phase.IN_FLIGHT.incrementAndGet(entered);
      if (current == entered) {
        return entered;
      }
      leave(entered);
    }
  }

  /** Counts down a read of the phase, which has ended, or entered too late. */
  void leave(Phase phase) {
    if (Phase.IN_FLIGHT.decrementAndGet(phase) == 0) {
      LockSupport.unpark(drainer);
    }
  }

  /** Says whether the handle may hold data that it read before an epoch. */
  boolean olderThan(long epoch) {
    return one.since < epoch || two.since < epoch;
  }

  /** Says whether the handle may hold any data. */
  boolean any() {
    return !one.isEmpty() || !two.isEmpty();
  }

  private Phase other() {
    return current == one ? two : one;
  }

  /**
   * Turns to the other phase if that is unused, for a flush that does not wait for reads.
   *
   * @return the phase whose reads have all ended, to be cleared when the flush has succeeded; null
   *     if there is none
   */
  @Nullable Phase turnWithoutWaiting() {
    Phase before = current;
    Phase other = other();
    if (other.inFlight != 0) {
      return null;
    }
    if (!other.isEmpty()) {
      return other;
    }
    current = other;
    return before.inFlight == 0 ? before : null;
  }

  /**
   * Turns to the other phase, and waits until all reads that began before have ended. Called by one
   * flush at a time, which holds no lock.
   *
   * @return the phase to be cleared when the flush has succeeded
   */
  Phase turnAndWait() {
    Phase before = current;
    Phase other = other();
    // Left over from a flush that did not wait. It has to be empty before reads may join it.
    awaitNone(other);
    long older = other.since;
    Phase.SINCE.accumulateAndGet(before, older, Math::min);
    other.clear();
    current = other;
    awaitNone(before);
    return before;
  }

  private void awaitNone(Phase phase) {
    drainer = Thread.currentThread();
    while (phase.inFlight != 0) {
      LockSupport.park(this);
    }
    drainer = null;
  }
}
