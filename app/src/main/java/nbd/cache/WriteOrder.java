package nbd.cache;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The order of an export's changing calls to the storage: those that touch the same sectors come
 * one after the other, as they entered, and others at the same time. So nothing that is written
 * back can overtake what was written later, and what is cached is what the last call left.
 *
 * <p>A call either writes back what is in the cache, or is a <i>change</i>: it gives the storage
 * what is not in the cache, which follows at its end. A write into the cache may go on beside a
 * change, and is the newer of the two, but only where each sector that both touch is whole in both:
 * of a sector that is partly the one's and partly the other's the cache could not tell which parts
 * are newer.
 *
 * <p>Invariant, guarded by the lock: a turn is in the list from {@link #enter} to {@link #leave},
 * and has lacked one permit for each turn that was there before it and overlaps it, until that one
 * left. Each enters once and waits only for those before it, so no two wait for each other. The
 * lock may be taken under that of a {@link Stripe}; no other is taken under it.
 */
final class WriteOrder {
  private final long sector;
  private final long size;
  private final ReentrantLock lock = new ReentrantLock();
  private final List<Turn> turns = new ArrayList<>();

  /** How many changes are in the list: so a write into the cache needs the lock beside one only. */
  private final AtomicInteger changes = new AtomicInteger();

  /** A call's place in the order. */
  static final class Turn {
    private final ByteRange touched;
    private final ByteRange whole;
    private final boolean isChange;
    private final List<Turn> followers = new ArrayList<>(0);
    private Semaphore ready = new Semaphore(1);

    private Turn(ByteRange touched, ByteRange whole, boolean isChange) {
      this.touched = touched;
      this.whole = whole;
      this.isChange = isChange;
    }
  }

  /**
   * Begins with none.
   *
   * @param sector in bytes, a power of 2
   * @param size of the export, in bytes: what is left of a sector there is a whole one
   */
  WriteOrder(long sector, long size) {
    this.sector = sector;
    this.size = size;
  }

  /** Waits until the range is the caller's, to write it back; no lock may be held. */
  Turn enter(long start, long end) {
    return enter(start, end, false);
  }

  /** Waits until the range is the caller's, to change it; no lock may be held. */
  Turn enterChange(long start, long end) {
    return enter(start, end, true);
  }

  private Turn enter(long start, long end, boolean isChange) {
    Turn turn = new Turn(touched(start, end), whole(start, end), isChange);
    lock.lock();
    try {
      int before = 0;
      for (Turn other : turns) {
        if (!other.touched.and(turn.touched).isEmpty()) {
          other.followers.add(turn);
          before++;
        }
      }
      if (before > 0) {
        turn.ready = new Semaphore(1 - before);
      }
      turns.add(turn);
      if (isChange) {
        changes.incrementAndGet();
      }
    } finally {
      lock.unlock();
    }
    turn.ready.acquireUninterruptibly();
    return turn;
  }

  /** The sectors that a range has a part of. */
  private ByteRange touched(long start, long end) {
    return new ByteRange(start & -sector, up(end));
  }

  /** The sectors that a range has all of. */
  private ByteRange whole(long start, long end) {
    return new ByteRange(up(start), end == size ? up(end) : end & -sector);
  }

  private long up(long offset) {
    return (offset + sector - 1) & -sector;
  }

  /** Gives the range to those who wait for it. */
  void leave(Turn turn) {
    lock.lock();
    try {
      turns.remove(turn);
      turn.followers.forEach(follower -> follower.ready.release());
      if (turn.isChange) {
        changes.decrementAndGet();
      }
    } finally {
      lock.unlock();
    }
  }

  /**
   * Whether a write into the cache of that range may go on beside the changes that are there. A
   * change that enters later finds what the write left, if the caller holds the locks of the blocks
   * until then.
   */
  boolean allowsBeside(long start, long end) {
    if (changes.get() == 0) {
      return true;
    }
    ByteRange touched = touched(start, end);
    ByteRange whole = whole(start, end);
    lock.lock();
    try {
      return turns.stream()
          .filter(turn -> turn.isChange)
          .allMatch(
              turn -> {
                ByteRange shared = turn.touched.and(touched);
                return shared.isEmpty() || shared.equals(turn.whole.and(whole));
              });
    } finally {
      lock.unlock();
    }
  }

  /** The ranges of the changes that are there and touch a range, in the order of their starts. */
  List<ByteRange> changing(long start, long end) {
    if (changes.get() == 0) {
      return List.of();
    }
    ByteRange asked = new ByteRange(start, end);
    lock.lock();
    try {
      return turns.stream()
          .filter(turn -> turn.isChange)
          .map(turn -> turn.touched.and(asked))
          .filter(range -> !range.isEmpty())
          .sorted(Comparator.comparingLong(ByteRange::start))
          .toList();
    } finally {
      lock.unlock();
    }
  }
}
