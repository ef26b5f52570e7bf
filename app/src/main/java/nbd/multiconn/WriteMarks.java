package nbd.multiconn;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;

/**
 * How many writes one handle has completed, and how many of them a flush has covered.
 *
 * <p>A write is counted when it is over. A flush reads the count before it starts, and when it has
 * succeeded, that many are covered. So a write that ends while a flush runs is not covered by it,
 * and cannot be lost between the two, as it can be from a flag that one sets and the other clears.
 */
final class WriteMarks extends WriteMarksFields {
  private static final VarHandle COMPLETED;

  static {
    try {
      COMPLETED =
          MethodHandles.lookup().findVarHandle(WriteMarksFields.class, "completed", long.class);
    } catch (ReflectiveOperationException e) {
      throw new ExceptionInInitializerError(e);
    }
  }

  /** Counts a write; called by whoever wrote, before the client is told. */
  void count() {
    COMPLETED.getAndAdd(this, 1L);
  }

  long completed() {
    return completed;
  }

  /** Under the group's lock: a flush covered that many writes. Answers whether that is news. */
  boolean cover(long count) {
    if (count <= covered) {
      return false;
    }
    covered = count;
    return true;
  }

  /** Under the group's lock. */
  boolean uncovered() {
    return completed > covered;
  }
}

/** The fields that each write changes, or looks at. */
abstract class WriteMarksFields extends Padding {
  volatile long completed;

  /** Guarded by the group's lock. */
  long covered;

  final Enrolment enrolment = new Enrolment();
}
