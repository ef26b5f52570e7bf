package nbd.cache;

import java.util.Comparator;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import nbd.threads.RangeLocks;
import nbd.threads.RangeLocks.Turn;

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
 * <p>Invariant: a change is in the list from before its turn until after its end.
 */
final class WriteOrder {
  private final Grid grid;
  private final RangeLocks order = new RangeLocks();
  private final List<Change> changes = new CopyOnWriteArrayList<>();

  private static final class Change extends Turn {
    /** The sectors that it has all of; its range is those that it has a part of. */
    private final ByteRange whole;

    Change(ByteRange touched, ByteRange whole) {
      super(touched.start(), touched.end());
      this.whole = whole;
    }

    ByteRange touched() {
      return new ByteRange(start(), end());
    }
  }

  WriteOrder(Grid grid) {
    this.grid = grid;
  }

  /** Waits until the range is the caller's, to write it back; no lock may be held. */
  Turn enter(long start, long end) {
    Turn turn = new Turn(start, end);
    order.enter(turn);
    return turn;
  }

  /** Waits until the range is the caller's, to change it; no lock may be held. */
  Turn enterChange(long start, long end) {
    Change change = new Change(touched(start, end), whole(start, end));
    changes.add(change);
    order.enter(change);
    return change;
  }

  /** Gives the range to the calls that wait for it. */
  void leave(Turn turn) {
    order.leave(turn);
    if (turn instanceof Change) {
      changes.remove(turn);
    }
  }

  /** Gives the sectors that a range has a part of. */
  private ByteRange touched(long start, long end) {
    return new ByteRange(grid.alignedDown(start), grid.alignedUp(end));
  }

  /** Gives the sectors that a range has all of. */
  private ByteRange whole(long start, long end) {
    return new ByteRange(grid.alignedUp(start), grid.alignedDown(end));
  }

  /**
   * Says whether a write into the cache may go on beside the changes that are there. A change that
   * enters later finds what the write left, if the caller holds the locks of the blocks until then.
   */
  boolean allowsBeside(long start, long end) {
    if (changes.isEmpty()) {
      return true;
    }
    ByteRange touched = touched(start, end);
    ByteRange whole = whole(start, end);
    return changes.stream()
        .allMatch(
            change -> {
              ByteRange shared = change.touched().and(touched);
              return shared.isEmpty() || shared.equals(change.whole.and(whole));
            });
  }

  /** Gives the parts of a range that changes touch, in the order of their starts. */
  List<ByteRange> changing(long start, long end) {
    ByteRange asked = new ByteRange(start, end);
    return changes.stream()
        .map(change -> change.touched().and(asked))
        .filter(range -> !range.isEmpty())
        .sorted(Comparator.comparingLong(ByteRange::start))
        .toList();
  }
}
