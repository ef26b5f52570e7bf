package nbd.cache;

import java.util.concurrent.atomic.AtomicLong;

/**
 * The transitions between the states of a block's sectors ({@link Block}). The caller holds the
 * lock of the block's stripe, but for {@link #dirtyBytes}. Ranges are of sectors, and end before
 * {@code to}.
 */
final class SectorStates {
  private final ExportCache cache;
  private final Grid grid;
  private final Epochs epochs;
  private final AtomicLong dirtySectors = new AtomicLong();

  SectorStates(ExportCache cache) {
    this.cache = cache;
    this.grid = cache.grid;
    this.epochs = cache.epochs;
  }

  /** Returns the bytes that have yet to be given to the storage. */
  long dirtyBytes() {
    return dirtySectors.get() << grid.sectorShift();
  }

  private Block.Changes changes(Block block) {
    Block.Changes changes = block.changes;
    if (changes == null) {
      changes = new Block.Changes(grid.sectorsPerBlock());
      block.changes = changes;
    }
    return changes;
  }

  /** Marks valid sectors dirty, which a client has written. */
  void dirtied(Block block, int from, int to) {
    Block.Changes changes = changes(block);
    if (Bits.isEmpty(changes.dirty)) {
      changes.dirtySince = epochs.now();
      changes.dirtyTick = cache.writeBack.tick();
    }
    Bits.set(changes.dirty, from, to);
    settle(block, changes);
  }

  /** Marks the range as writing: it is about to be written back. */
  void beginWritingBack(Block block, int from, int to) {
    Block.Changes changes = changes(block);
    beginWriting(changes, from, to);
    // Also the clean sectors between dirty ones.
    Bits.set(changes.writing, from, to);
    settle(block, changes);
  }

  /** Marks dirty sectors of the range as writing: they are about to be replaced. */
  void beginReplacing(Block block, int from, int to) {
    Block.Changes changes = block.changes;
    if (changes != null) {
      beginWriting(changes, from, to);
      settle(block, changes);
    }
  }

  private void beginWriting(Block.Changes changes, int from, int to) {
    long since = Bits.any(changes.dirty, from, to) ? changes.dirtySince : epochs.now();
    changes.writingSince =
        Bits.isEmpty(changes.writing) ? since : Math.min(changes.writingSince, since);
    Bits.addAll(changes.writing, changes.dirty, from, to);
    Bits.clear(changes.dirty, from, to);
  }

  /** Marks writing sectors of the range as given to the storage. */
  void writtenBack(Block block, int from, int to) {
    Block.Changes changes = changes(block);
    noteGiven(changes);
    Bits.addAll(changes.unflushed, changes.writing, from, to);
    Bits.clear(changes.writing, from, to);
    settle(block, changes);
  }

  /** Marks writing sectors of the range as dirty again: they may not have been stored. */
  void failedWriting(Block block, int from, int to) {
    Block.Changes changes = block.changes;
    if (changes == null || !Bits.any(changes.writing, from, to)) {
      return;
    }
    changes.dirtySince =
        Bits.isEmpty(changes.dirty)
            ? changes.writingSince
            : Math.min(changes.dirtySince, changes.writingSince);
    Bits.addAll(changes.dirty, changes.writing, from, to);
    Bits.clear(changes.writing, from, to);
    settle(block, changes);
  }

  /** Clears writing sectors of the range: they have been replaced at the storage. */
  void replaced(Block block, int from, int to) {
    Block.Changes changes = block.changes;
    if (changes != null) {
      Bits.clear(changes.writing, from, to);
      Bits.clear(changes.unflushed, from, to);
      settle(block, changes);
    }
  }

  /** Marks valid sectors as given to the storage, which a call has also put here. */
  void given(Block block, int from, int to) {
    Block.Changes changes = changes(block);
    noteGiven(changes);
    Bits.set(changes.unflushed, from, to);
  }

  private void noteGiven(Block.Changes changes) {
    if (epochs.isCovered(changes.givenAt)) {
      Bits.clear(changes.unflushed, 0, grid.sectorsPerBlock());
    }
    changes.givenAt = epochs.now();
  }

  /** Forgets valid sectors of the range, but for those that are dirty or writing. */
  void invalidate(Block block, int from, int to) {
    Block.Changes changes = block.changes;
    if (changes == null) {
      Bits.clear(block.valid, from, to);
      return;
    }
    long[] kept = changes.unstored();
    Bits.retainAll(block.valid, kept, from, to);
    Bits.retainAll(changes.unflushed, kept, from, to);
  }

  /** Marks sectors of the range dirty again that no flush has covered since they were given. */
  void distrust(Block block, int from, int to) {
    Block.Changes changes = block.changes;
    if (changes == null || epochs.isCovered(changes.givenAt)) {
      return;
    }
    Bits.retainAll(changes.unflushed, block.valid, from, to);
    if (Bits.any(changes.unflushed, from, to)) {
      Bits.addAll(changes.dirty, changes.unflushed, from, to);
      Bits.clear(changes.unflushed, from, to);
      changes.dirtySince = 0;
      settle(block, changes);
    }
  }

  /** Notes that a block without dirty or writing sectors loses its frame. */
  void evicted(Block block) {
    Block.Changes changes = block.changes;
    if (changes != null && !epochs.isCovered(changes.givenAt) && !Bits.isEmpty(changes.unflushed)) {
      epochs.uncached(changes.givenAt);
    }
  }

  /** Gives a block up, whatever the states of its sectors. */
  void discarded(Block block) {
    Block.Changes changes = block.changes;
    if (changes != null) {
      Bits.clear(changes.dirty, 0, grid.sectorsPerBlock());
      Bits.clear(changes.writing, 0, grid.sectorsPerBlock());
      settle(block, changes);
    }
  }

  /** Counts the sectors that no flush of the storage covers. */
  int unflushed(Block block) {
    Block.Changes changes = block.changes;
    if (changes == null) {
      return 0;
    }
    long[] unstored = changes.unstored();
    return Bits.countEither(
        unstored, epochs.isCovered(changes.givenAt) ? unstored : changes.unflushed);
  }

  /** Counts the sectors that are dirty or writing, and lists the block while there are any. */
  private void settle(Block block, Block.Changes changes) {
    int before = changes.counted;
    int after = Bits.countEither(changes.dirty, changes.writing);
    changes.counted = after;
    if (after != before) {
      dirtySectors.addAndGet(after - before);
      cache.statistics.dirtyBytes.add((long) (after - before) << grid.sectorShift());
    }
    if (before == 0 && after > 0) {
      block.stripe.list(block);
      cache.writeBack.someDirty(cache.frames.countDirty());
    } else if (before > 0 && after == 0) {
      block.stripe.unlist(block);
      cache.frames.countClean();
    }
  }
}
