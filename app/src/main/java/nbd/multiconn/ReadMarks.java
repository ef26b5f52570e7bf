package nbd.multiconn;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/**
 * Since when one handle may hold older data from reads, and which of its reads are in flight.
 *
 * <p>Time here is the count of the times at which something became visible that others wrote ("age"
 * below). A handle's reads fall into two phases. A flush turns to the other phase; then the reads
 * of the phase before end, and no read joins them, so that a flush that waits for them waits for a
 * closed set, however many reads come after it. When they have ended, and the flush that started
 * afterwards has succeeded, the handle holds nothing of that phase any more.
 *
 * <p>A read counts itself in a phase and looks again whether it is still the current one, before
 * anything else. So a phase that is not current and has no reads in flight gets none until a flush
 * turns back to it, and only one flush at a time does so.
 */
final class ReadMarks extends ReadMarksFields {
  /** Nothing read. */
  static final long NONE = Long.MAX_VALUE;

  private static final VarHandle IN_FLIGHT_0;
  private static final VarHandle IN_FLIGHT_1;
  private static final VarHandle SINCE_0;
  private static final VarHandle SINCE_1;

  static {
    MethodHandles.Lookup lookup = MethodHandles.lookup();
    try {
      IN_FLIGHT_0 = lookup.findVarHandle(ReadMarksFields.class, "inFlight0", int.class);
      IN_FLIGHT_1 = lookup.findVarHandle(ReadMarksFields.class, "inFlight1", int.class);
      SINCE_0 = lookup.findVarHandle(ReadMarksFields.class, "since0", long.class);
      SINCE_1 = lookup.findVarHandle(ReadMarksFields.class, "since1", long.class);
    } catch (ReflectiveOperationException e) {
      throw new ExceptionInInitializerError(e);
    }
  }

  /** A read begins. Answers its phase, for {@link #leave}. */
  int enter() {
    while (true) {
      int entered = phase;
      if (entered == 0) {
        IN_FLIGHT_0.getAndAdd(this, 1);
      } else {
        IN_FLIGHT_1.getAndAdd(this, 1);
      }
      if (phase == entered) {
        return entered;
      }
      leave(entered);
    }
  }

  /** A read of the phase has ended, or has turned away. */
  void leave(int of) {
    int before =
        of == 0 ? (int) IN_FLIGHT_0.getAndAdd(this, -1) : (int) IN_FLIGHT_1.getAndAdd(this, -1);
    if (before == 1) {
      Thread waits = drainer;
      if (waits != null) {
        LockSupport.unpark(waits);
      }
    }
  }

  long since(int of) {
    return of == 0 ? since0 : since1;
  }

  /**
   * The first read of a phase notes the age at which it began. If another read was faster, its note
   * does for this one too: this one has fetched nothing yet.
   */
  void note(int of, long age) {
    if (of == 0) {
      SINCE_0.compareAndSet(this, NONE, age);
    } else {
      SINCE_1.compareAndSet(this, NONE, age);
    }
  }

  /** Whether something may be held that was read when less was visible. */
  boolean olderThan(long age) {
    return since0 < age || since1 < age;
  }

  /** Whether anything may be held. */
  boolean any() {
    return since0 != NONE || since1 != NONE;
  }

  /**
   * A flush starts that does not wait for reads: turns to the other phase if that is unused.
   *
   * @return the phase whose reads have all ended, and which the flush clears if it succeeds; -1 if
   *     none
   */
  int turnWithoutWaiting() {
    int current = phase;
    int other = 1 - current;
    if (since(other) == NONE && inFlight(other) == 0) {
      phase = other;
      return inFlight(current) == 0 ? current : -1;
    }
    return inFlight(other) == 0 ? other : -1;
  }

  /**
   * Turns to the other phase, and waits until all reads that began before have ended. Called by one
   * flush at a time, which holds no lock.
   *
   * @return the phase that the flush clears if it succeeds
   */
  int turnAndWait() {
    int current = phase;
    int other = 1 - current;
    // Left over from a flush that did not wait. It has to be empty before reads may join it.
    awaitNone(other);
    fold(other, current);
    phase = other;
    awaitNone(current);
    return current;
  }

  private void fold(int from, int to) {
    long older = since(from);
    VarHandle target = to == 0 ? SINCE_0 : SINCE_1;
    long present = since(to);
    while (older < present && !target.compareAndSet(this, present, older)) {
      present = since(to);
    }
    clear(from);
  }

  /** A flush that started after the phase's last read had ended has succeeded. */
  void clear(int of) {
    if (of == 0) {
      since0 = NONE;
    } else {
      since1 = NONE;
    }
  }

  private int inFlight(int of) {
    return of == 0 ? inFlight0 : inFlight1;
  }

  private void awaitNone(int of) {
    if (inFlight(of) == 0) {
      return;
    }
    drainer = Thread.currentThread();
    while (inFlight(of) != 0) {
      LockSupport.park(this);
    }
    drainer = null;
  }
}

/** The fields that each read changes, or looks at. */
abstract class ReadMarksFields extends Padding {
  volatile int phase;
  volatile int inFlight0;
  volatile int inFlight1;
  volatile long since0 = ReadMarks.NONE;
  volatile long since1 = ReadMarks.NONE;
  volatile @Nullable Thread drainer;

  final Enrolment enrolment = new Enrolment();
}
