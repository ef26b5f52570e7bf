package nbd.cache;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.Predicate;
import java.util.stream.LongStream;
import org.jspecify.annotations.Nullable;

/** The known blocks of an export, in stripes with a lock each. */
final class BlockIndex {
  private static final int MOST_STRIPES = 64;

  /** For more blocks than this it is cheaper to go through all that are known. */
  private static final int MOST_LOOKED_UP = 256;

  private final ExportCache cache;
  private final Grid grid;
  private final Stripe[] stripes;

  /**
   * Makes an index that knows no block.
   *
   * @param mostBlocks the number of blocks that may have frames
   */
  BlockIndex(ExportCache cache, int mostBlocks) {
    this.cache = cache;
    this.grid = cache.grid;
    stripes = new Stripe[Math.min(MOST_STRIPES, Integer.highestOneBit(mostBlocks))];
    for (int i = 0; i < stripes.length; i++) {
      stripes[i] = new Stripe();
    }
  }

  /** Spreads numbers that follow each other. */
  static long scatter(long number) {
    return number * 0x9E3779B97F4A7C15L;
  }

  Stripe stripe(long number) {
    return stripes[stripeOf(number)];
  }

  private int stripeOf(long number) {
    return (int) (scatter(number) >>> 58) & (stripes.length - 1);
  }

  /**
   * Locks the stripes of blocks that follow each other: in the order of the stripes, so that no two
   * threads wait for each other. The caller holds none.
   *
   * @return the stripes, for {@link #unlock}
   */
  long lock(long first, long last) {
    long locked = 0;
    for (long number = first; number <= last; number++) {
      locked |= 1L << stripeOf(number);
    }
    for (long left = locked; left != 0; left &= left - 1) {
      stripes[Long.numberOfTrailingZeros(left)].lock.lock();
    }
    return locked;
  }

  void unlock(long locked) {
    for (long left = locked; left != 0; left &= left - 1) {
      stripes[Long.numberOfTrailingZeros(left)].lock.unlock();
    }
  }

  // With the lock of the block's stripe held.

  /** Finds a block, if it is known. */
  @Nullable Block get(long number) {
    return stripe(number).get(number);
  }

  /** Finds a block, or adds it without a frame. */
  Block getOrAdd(long number) {
    Block block = get(number);
    if (block == null) {
      block = new Block(cache, number);
      block.stripe.add(block);
    }
    return block;
  }

  /** Forgets a block that nothing needs; one with a frame is left to be evicted. */
  void tidy(Block block) {
    if (block.frame == null && block.isForgettable()) {
      block.stripe.remove(block);
    }
  }

  // Without a lock held.

  /**
   * Evicts a block.
   *
   * @return its frame; null if it has none or cannot be evicted
   */
  @Nullable Frame evict(Block block) {
    block.stripe.lock.lock();
    try {
      Frame frame = block.frame;
      if (frame == null || !block.isForgettable()) {
        return null;
      }
      cache.states.evicted(block);
      block.frame = null;
      block.stripe.remove(block);
      return frame;
    } finally {
      block.stripe.lock.unlock();
    }
  }

  /**
   * Copies a part of a block, if all of that is cached.
   *
   * @param isNewUse whether to count it as a use of the block
   */
  boolean readHit(long number, int inBlock, int count, ByteBuffer into, boolean isNewUse) {
    Stripe stripe = stripe(number);
    stripe.lock.lock();
    try {
      Block block = stripe.get(number);
      if (block == null
          || block.frame == null
          || !Bits.all(block.valid, grid.sector(inBlock), grid.endSector(inBlock + count))) {
        return false;
      }
      block.frame.read(inBlock, into, count);
      if (isNewUse) {
        block.used();
      }
      return true;
    } finally {
      stripe.lock.unlock();
    }
  }

  /** Passes every block to an action, under its lock; the action may remove it. */
  void forEach(Consumer<Block> action) {
    for (Stripe stripe : stripes) {
      stripe.lock.lock();
      try {
        stripe.forEach(action);
      } finally {
        stripe.lock.unlock();
      }
    }
  }

  /** An action on the sectors of a block that lie in a range. */
  @FunctionalInterface
  interface RangeAction {
    void on(Block block, int first, int last);
  }

  /** Passes every known block of a range to an action, under its lock. */
  void forEachKnown(long offset, long end, RangeAction action) {
    long first = grid.blockOf(offset);
    long last = grid.blockOf(end - 1);
    Consumer<Block> onBlock =
        block -> {
          long start = grid.start(block.number);
          int from = grid.sector((int) Math.max(0, offset - start));
          int to = grid.endSector((int) Math.min(grid.blockSize(), end - start));
          action.on(block, from, to);
        };
    if (last - first > MOST_LOOKED_UP) {
      forEach(
          block -> {
            if (block.number >= first && block.number <= last) {
              onBlock.accept(block);
            }
          });
      return;
    }
    for (long number = first; number <= last; number++) {
      Stripe stripe = stripe(number);
      stripe.lock.lock();
      try {
        Block block = stripe.get(number);
        if (block != null) {
          onBlock.accept(block);
        }
      } finally {
        stripe.lock.unlock();
      }
    }
  }

  /** Gives the numbers of the blocks with dirty or writing sectors that are wanted, sorted. */
  long[] dirtyBlocks(Predicate<Block.Changes> wanted) {
    LongStream.Builder found = LongStream.builder();
    for (Stripe stripe : stripes) {
      stripe.lock.lock();
      try {
        stripe.forEachDirty(
            block -> {
              if (block.changes != null && wanted.test(block.changes)) {
                found.add(block.number);
              }
            });
      } finally {
        stripe.lock.unlock();
      }
    }
    return found.build().sorted().toArray();
  }

  /**
   * Gives the parts of a range that have yet to be given to the storage, in order; adjacent ones
   * are one.
   *
   * @param most the number of parts that are wanted at most: the first ones
   */
  List<ByteRange> dirtyRanges(long offset, long end, int most) {
    long first = grid.blockOf(offset);
    long last = grid.blockOf(end - 1);
    ByteRange asked = new ByteRange(offset, end);
    List<ByteRange> found = new ArrayList<>();
    for (long number : dirtyBlocks(changes -> true)) {
      if (number >= first && number <= last && found.size() <= most) {
        addDirty(number, asked, found);
      }
    }
    return found.size() > most ? found.subList(0, most) : found;
  }

  private void addDirty(long number, ByteRange asked, List<ByteRange> found) {
    Stripe stripe = stripe(number);
    stripe.lock.lock();
    try {
      Block block = stripe.get(number);
      if (block == null || block.changes == null) {
        return;
      }
      long[] unstored = block.changes.unstored();
      int sectors = grid.sectorsOf(number);
      for (int from = Bits.next(unstored, 0, sectors); from < sectors; ) {
        int to = Bits.nextMissing(unstored, from, sectors);
        new ByteRange(
                grid.start(number) + ((long) from << grid.sectorShift()),
                grid.start(number) + ((long) to << grid.sectorShift()))
            .and(asked)
            .appendTo(found);
        from = Bits.next(unstored, to, sectors);
      }
    } finally {
      stripe.lock.unlock();
    }
  }
}
