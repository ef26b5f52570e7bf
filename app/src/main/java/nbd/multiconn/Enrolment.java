package nbd.multiconn;

import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/**
 * One handle's way into an {@link Inbox}: taken by the first mark after the handle was found clean,
 * and by none of the marks after it, so that a mark costs no shared cache line.
 *
 * <p>Whoever marks (1) changes the mark, (2) reads the interval, (3) unless somebody has enrolled
 * in this interval, enrols and (4) says so. Whoever finds the handle clean, under the group's lock,
 * (a) begins a new interval, (b) looks at the mark once more, and (c) takes the handle off its list
 * if it is clean still. If (4) is seen at (3), then an enrolment was made since the interval began:
 * it is on the list or in the inbox unless (c) has come since; then (a) comes after (2), so (b)
 * after (1), and the mark is seen. If it is not, whoever marks enrols, and the inbox is not looked
 * at before the lock is free. A late (4) names an interval that is over, and counts for nothing.
 */
final class Enrolment {
  private volatile int interval;
  private volatile int enrolledIn = -1;
  private final AtomicReference<@Nullable Node> spare = new AtomicReference<>();

  /** After a mark was made. Without locks; allocates only beside another thread of this handle. */
  void enrol(Inbox inbox, Member member) {
    int now = interval;
    if (enrolledIn != now) {
      Node reused = spare.getAndSet(null);
      inbox.push(reused == null ? new Node(this, member) : reused);
      enrolledIn = now;
    }
  }

  /** Under the group's lock, before the mark is looked at to take the member off its list. */
  @SuppressWarnings("NonAtomicVolatileUpdate") // Only under the lock; the others only read it.
  void beginInterval() {
    interval++;
  }

  /** One enrolment in an inbox. */
  static final class Node {
    final Member member;
    @Nullable Node next;
    private final Enrolment owner;

    Node(Enrolment owner, Member member) {
      this.owner = owner;
      this.member = member;
    }

    /** The inbox has done with it: the next enrolment may use it. */
    void giveBack() {
      next = null;
      owner.spare.set(this);
    }
  }
}
