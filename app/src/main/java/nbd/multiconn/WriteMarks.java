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

  /**
   * The storage has answered a request that began when there were that many openings of the scope;
   * called before the write is counted. Of two that end at the same time the lower number may stay,
   * which costs a flush and no more.
   */
  void answered(long openings) {
    if (openings > provenWith) {
      provenWith = openings;
    }
  }

  /** See {@link FlushScope}; at least that of every write that was completed before. */
  long provenWith() {
    return provenWith;
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

  /** Changes only with the first write after another handle was opened. */
  volatile long provenWith;

  /** Guarded by the group's lock. */
  long covered;

  final Enrolment enrolment = new Enrolment();
}
