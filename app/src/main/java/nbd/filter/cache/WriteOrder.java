package nbd.filter.cache;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Semaphore;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The order of an export's changing calls to the storage: those whose ranges overlap come one after
 * the other, as they entered, and others at the same time. So nothing that is written back can
 * overtake what was written later, and what is cached is what the last call left.
 *
 * <p>Invariant, guarded by the lock: a turn is in the list from {@link #enter} to {@link #leave},
 * and has lacked one permit for each turn that was there before it and overlaps it, until that one
 * left. Each enters once and waits only for those before it, so no two wait for each other.
 */
final class WriteOrder {
  private final ReentrantLock lock = new ReentrantLock();
  private final List<Turn> turns = new ArrayList<>();

  /** A call's place in the order. */
  static final class Turn {
    private final long start;
    private final long end;
    private final List<Turn> followers = new ArrayList<>(0);
    private Semaphore ready = new Semaphore(1);

    private Turn(long start, long end) {
      this.start = start;
      this.end = end;
    }
  }

  /** Waits until the range is the caller's; no lock may be held. The range is in bytes. */
  Turn enter(long start, long end) {
    Turn turn = new Turn(start, end);
    lock.lock();
    try {
      int before = 0;
      for (Turn other : turns) {
        if (other.start < end && start < other.end) {
          other.followers.add(turn);
          before++;
        }
      }
      if (before > 0) {
        turn.ready = new Semaphore(1 - before);
      }
      turns.add(turn);
    } finally {
      lock.unlock();
    }
    turn.ready.acquireUninterruptibly();
    return turn;
  }

  /** Gives the range to those who wait for it. */
  void leave(Turn turn) {
    lock.lock();
    try {
      turns.remove(turn);
      turn.followers.forEach(follower -> follower.ready.release());
    } finally {
      lock.unlock();
    }
  }
}
