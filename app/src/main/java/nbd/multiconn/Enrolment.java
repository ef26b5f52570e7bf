package nbd.multiconn;

import java.util.Queue;

/**
 * One handle's entry into an inbox of its group: made by the first mark after the handle was found
 * clean, and by none of the marks after it, so that a mark costs no shared cache line.
 *
 * <p>The thread that marks (1) changes the mark, (2) reads the interval, (3) unless some thread has
 * enrolled in this interval, enrols and (4) says so. The thread that finds the handle clean, under
 * the group's lock, (a) begins a new interval, (b) looks at the mark once more, and (c) takes the
 * handle off its list if it is clean still. If (4) is seen at (3), then an enrolment was made since
 * the interval began: it is on the list or in the inbox unless (c) has come since; then (a) comes
 * after (2), so (b) after (1), and the mark is seen. If it is not seen, the thread that marks
 * enrols, and the inbox is not looked at before the lock is free. A late (4) names an interval that
 * is over, and counts for nothing.
 */
final class Enrolment {
  private volatile int interval;
  private volatile int enrolledIn = -1;

  /** Called after a mark was made, without a lock. */
  void enrol(Queue<Member> inbox, Member member) {
    int now = interval;
    if (enrolledIn != now) {
      inbox.add(member);
      enrolledIn = now;
    }
  }

  /**
   * Called under the group's lock, before the mark is looked at to take the member off its list.
   */
  @SuppressWarnings("NonAtomicVolatileUpdate") // Changed only under the lock.
  void beginInterval() {
    interval++;
  }
}
