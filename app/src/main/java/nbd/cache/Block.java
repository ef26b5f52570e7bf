package nbd.cache;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.jspecify.annotations.Nullable;

/**
 * The state of one block of an export, by its sectors. Guarded by the lock of its {@link Stripe},
 * but for what is said to be otherwise. {@link SectorStates} changes it.
 *
 * <p>Of a block with a frame, a sector is
 *
 * <ul>
 *   <li><i>valid</i>: the frame has its newest content;
 *   <li><i>dirty</i>: valid, and written by a client since it was last given to the storage;
 *   <li><i>writing</i>: a call that changes it is under way at the storage: its content of that
 *       moment is written back, or it was dirty and is being replaced there. If the call fails, it
 *       is dirty again. The range is that call's in the {@link WriteOrder};
 *   <li><i>unflushed</i>: valid, and given to the storage, but not covered by its flush: if the
 *       storage breaks, it is dirty again.
 * </ul>
 *
 * <p>Invariant: a block with a dirty or writing sector, or a watch, stays in the index, and keeps
 * its frame. One without a frame has no valid sector.
 */
final class Block {
  final ExportCache cache;
  final Stripe stripe;
  final long number;

  @Nullable Frame frame;
  final long[] valid;

  /** Made when a client first writes to the block. */
  @Nullable Changes changes;

  /** Ends with the reading of missing sectors that others may wait for. */
  @Nullable CompletableFuture<Void> fetch;

  /** All calls that read from the storage what is missing here. */
  private List<Watch> watches = List.of();

  /** The next block in the same bucket of the index. */
  @Nullable Block sameBucket;

  /** The neighbours in the list of blocks with dirty or writing sectors. */
  @Nullable Block nextDirty;

  @Nullable Block previousDirty;

  /**
   * The recent uses, counted up to {@link Frames#MOST_USES}. A hint: an update may be lost, since
   * {@link Frames} reads and changes it without the stripe's lock.
   */
  int uses;

  /** The sectors that clients have written. */
  static final class Changes {
    final long[] dirty;
    final long[] writing;

    /** Meaningful only if what was given at {@link #givenAt} is not covered by a flush. */
    final long[] unflushed;

    /** The epoch in which the first of the dirty sectors became so. */
    long dirtySince;

    /** The same, in ticks of the background's clock. */
    long dirtyTick;

    /** The lowest such epoch of the sectors that are writing. */
    long writingSince;

    /** The epoch in which the last of the unflushed sectors was given to the storage. */
    long givenAt = -1;

    /** The number of dirty or writing sectors; the block is listed while there are any. */
    int counted;

    Changes(int sectors) {
      dirty = Bits.of(sectors);
      writing = Bits.of(sectors);
      unflushed = Bits.of(sectors);
    }

    /** The sectors that are dirty or writing. */
    long[] unstored() {
      long[] unstored = dirty.clone();
      for (int i = 0; i < unstored.length; i++) {
        unstored[i] |= writing[i];
      }
      return unstored;
    }
  }

  /**
   * A call that reads from the storage, with the sectors whose content there has changed since it
   * began, or may have, by other ways than through the block's frame: what it brings of them is too
   * old.
   */
  static final class Watch {
    /** True if the data is kept for later reads. */
    final boolean isFetch;

    final long[] changed;

    Watch(int sectors, boolean isFetch) {
      this.isFetch = isFetch;
      changed = Bits.of(sectors);
    }
  }

  Block(ExportCache cache, long number) {
    this.cache = cache;
    this.stripe = cache.index.stripe(number);
    this.number = number;
    this.valid = Bits.of(cache.grid.sectorsPerBlock());
  }

  /** Says whether it has sectors that are dirty or writing. */
  boolean isDirty() {
    return changes != null && changes.counted > 0;
  }

  boolean isValid(int from, int to) {
    return frame != null && Bits.all(valid, from, to);
  }

  /** Says whether nothing is pending: no fetch, no watch, no dirty or writing sector. */
  boolean isForgettable() {
    return watches.isEmpty() && fetch == null && !isDirty();
  }

  void used() {
    if (uses < Frames.MOST_USES) {
      uses++;
    }
  }

  void watch(Watch watch) {
    if (watches.isEmpty()) {
      watches = new ArrayList<>(1);
    }
    watches.add(watch);
  }

  void unwatch(Watch watch) {
    watches.remove(watch);
    if (watches.isEmpty()) {
      watches = List.of();
    }
  }

  /** Marks what calls that read from the storage bring of these sectors as too old. */
  void outdate(int from, int to) {
    watches.forEach(watch -> Bits.set(watch.changed, from, to));
  }

  /**
   * Marks what fetches bring of these sectors as too old: a client has seen what the storage had,
   * which may be newer, if a call that changes the sectors is under way.
   */
  void seen(int from, int to) {
    for (Watch watch : watches) {
      if (watch.isFetch) {
        Bits.set(watch.changed, from, to);
      }
    }
  }
}
