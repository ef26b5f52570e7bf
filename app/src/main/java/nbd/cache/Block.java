package nbd.cache;

import org.jspecify.annotations.Nullable;

/**
 * What the cache knows of one block of an export, by its sectors. Guarded by the lock of its {@link
 * Stripe}, but for what is said to be otherwise.
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
  final long number;

  @Nullable Frame frame;
  final long[] valid;

  /** Made when a client first writes to the block. */
  @Nullable Changes changes;

  /** The reading of missing sectors that others may wait for. */
  @Nullable Fetch fetch;

  /** All calls that read from the storage what is missing here. */
  @Nullable Watch watches;

  /** The next one in the same place of the index. */
  @Nullable Block sameBucket;

  /** The list of blocks with dirty or writing sectors. */
  @Nullable Block nextDirty;

  @Nullable Block previousDirty;

  /**
   * How often it was used lately, up to {@link Frames#MOST_USES}. Written without the lock of the
   * queues that read it: a hint, of which one may be lost.
   */
  int uses;

  /** Where it stands among those that may be evicted; guarded by the lock of {@link Frames}. */
  Frames.@Nullable Queue queue;

  @Nullable Block newer;
  @Nullable Block older;

  /** What clients have written. */
  static final class Changes {
    final long[] dirty;
    final long[] writing;

    /** Meaningful only if {@link #writtenAt} is not covered by a flush of the storage. */
    final long[] unflushed;

    /** The export's epoch when the first of the dirty sectors became so. */
    long dirtySince;

    /** The lowest one of the sectors that are writing. */
    long writingSince;

    /** The epoch when the last of the unflushed sectors was given to the storage. */
    long writtenAt = -1;

    /** When the first of the dirty sectors became so, in ticks of the background's clock. */
    long dirtyTick;

    /** Whether it is in the list of its stripe. */
    boolean listed;

    Changes(int sectors) {
      dirty = Bits.of(sectors);
      writing = Bits.of(sectors);
      unflushed = Bits.of(sectors);
    }

    boolean any() {
      return !Bits.isEmpty(dirty) || !Bits.isEmpty(writing);
    }
  }

  /**
   * A call that reads from the storage: the sectors whose content there has changed since it began,
   * by other ways than through this cache's frame, or may have. What it brings of them is too old.
   */
  static final class Watch {
    /** Whether what it brings is kept for others. */
    final boolean isFetch;

    final long[] changed;
    @Nullable Watch next;

    Watch(int sectors, boolean isFetch) {
      this.isFetch = isFetch;
      changed = Bits.of(sectors);
    }
  }

  Block(ExportCache cache, long number, int sectors) {
    this.cache = cache;
    this.number = number;
    this.valid = Bits.of(sectors);
  }

  boolean isValid(int from, int to) {
    return frame != null && Bits.all(valid, from, to);
  }

  /** No pending fetch or watch, nothing dirty or being written. */
  boolean isForgettable() {
    return watches == null && fetch == null && (changes == null || !changes.any());
  }

  void used() {
    if (uses < Frames.MOST_USES) {
      uses++;
    }
  }

  void watch(Watch watch) {
    watch.next = watches;
    watches = watch;
  }

  void unwatch(Watch watch) {
    if (watches == watch) {
      watches = watch.next;
      return;
    }
    for (Watch at = watches; at != null; at = at.next) {
      if (at.next == watch) {
        at.next = watch.next;
        return;
      }
    }
  }

  /** Tells those who read from the storage that what they get of these sectors is too old. */
  void outdate(int from, int to) {
    for (Watch watch = watches; watch != null; watch = watch.next) {
      Bits.set(watch.changed, from, to);
    }
  }

  /**
   * Tells fetches that somebody has seen what the storage had of these sectors: it may be newer
   * than what they get, if a call that changes them is under way.
   */
  void seen(int from, int to) {
    for (Watch watch = watches; watch != null; watch = watch.next) {
      if (watch.isFetch) {
        Bits.set(watch.changed, from, to);
      }
    }
  }
}
