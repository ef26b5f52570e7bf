package nbd.threads;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Semaphore;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Turns of calls on ranges of bytes: those whose ranges overlap come one after the other, in the
 * order in which they entered, and the others at the same time.
 *
 * <p>Invariant, guarded by the lock: a turn is in the list from {@link #enter} to {@link #leave},
 * and has lacked one permit for each turn that was there before it and overlaps it, until that one
 * left. Each enters once and waits only for those before it, so no two wait for each other. No
 * other lock is taken under this one.
 */
public final class RangeLocks {
  private static final Semaphore NEVER_WAITED_FOR = new Semaphore(0);

  private final ReentrantLock lock = new ReentrantLock();
  private final List<Turn> turns = new ArrayList<>();

  /** One call's range, and its place in the order; used for one call only. */
  public static class Turn {
    private final long start;
    private final long end;
    private Semaphore ready = NEVER_WAITED_FOR;

    /** Those that wait for this one. */
    private List<Turn> followers = List.of();

    /** The range from its first byte to the one after its last. */
    public Turn(long start, long end) {
      this.start = start;
      this.end = end;
    }

    /** The first byte. */
    public final long start() {
      return start;
    }

    /** The one after the last byte. */
    public final long end() {
      return end;
    }
  }

  /** Waits until the range is the caller's. */
  public void enter(Turn turn) {
    int before = 0;
    lock.lock();
    try {
      for (Turn other : turns) {
        if (overlap(other, turn)) {
          if (other.followers.isEmpty()) {
            other.followers = new ArrayList<>();
          }
          other.followers.add(turn);
          before++;
        }
      }
      turns.add(turn);
      if (before > 0) {
        turn.ready = new Semaphore(0);
      }
    } finally {
      lock.unlock();
    }
    turn.ready.acquireUninterruptibly(before);
  }

  /** Takes the range if that needs no waiting. */
  public boolean tryEnter(Turn turn) {
    lock.lock();
    try {
      for (int i = 0; i < turns.size(); i++) {
        if (overlap(turns.get(i), turn)) {
          return false;
        }
      }
      turns.add(turn);
      return true;
    } finally {
      lock.unlock();
    }
  }

  private static boolean overlap(Turn one, Turn other) {
    return one.start < other.end && other.start < one.end;
  }

  /** Gives the range to those that wait for it. */
  public void leave(Turn turn) {
    lock.lock();
    try {
      turns.remove(turn);
      turn.followers.forEach(follower -> follower.ready.release());
    } finally {
      lock.unlock();
    }
  }
}
