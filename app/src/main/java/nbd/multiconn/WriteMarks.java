package nbd.multiconn;

import java.util.concurrent.atomic.AtomicLongFieldUpdater;

/**
 * The number of writes that one handle has completed, and how many of them a flush has covered.
 *
 * <p>A write is counted when it is over. A flush reads the count before it starts, and when it has
 * succeeded, that many are covered. So a write that ends while a flush runs is not covered by it,
 * and cannot be lost between the two, as it can be from a flag that one sets and the other clears.
 */
final class WriteMarks extends Padding {
  private static final AtomicLongFieldUpdater<WriteMarks> COMPLETED =
      AtomicLongFieldUpdater.newUpdater(WriteMarks.class, "completed");

  private volatile long completed;

  /** Changes only with the first write after another handle was opened. */
  private volatile long openingsSeen;

  /** Guarded by the group's lock. */
  private long covered;

  final Enrolment enrolment = new Enrolment();

  /** Counts a write; called by the thread that wrote, before the client gets its reply. */
  void count() {
    COMPLETED.incrementAndGet(this);
  }

  /**
   * Notes that the storage has answered a write that began when the scope had that many openings;
   * called before the write is counted. Of two that end at the same time the lower number may stay,
   * which costs one more flush, and nothing else.
   */
  void answered(long openings) {
    if (openings > openingsSeen) {
      openingsSeen = openings;
    }
  }

  /**
   * Returns the number of openings that the scope had when the newest answered write began, at
   * least the number for every write that is counted; {@link FlushScope} says what that proves.
   */
  long openingsSeen() {
    return openingsSeen;
  }

  long completed() {
    return completed;
  }

  /** Notes, under the group's lock, that a flush covered that many; false if they were already. */
  boolean cover(long count) {
    if (count <= covered) {
      return false;
    }
    covered = count;
    return true;
  }

  /** Says whether a write is not covered; called under the group's lock. */
  boolean uncovered() {
    return completed > covered;
  }
}
