package nbd.cache;

import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * A part of an export's index of blocks, with the lock of those blocks. The lock is held while
 * bytes are copied from and to a frame, and never while its owner waits for anything. Under it only
 * the monitor of {@link Frames} is entered.
 */
final class Stripe {
  private static final int FIRST_BUCKETS = 8;

  final ReentrantLock lock = new ReentrantLock();

  private @Nullable Block[] buckets = new @Nullable Block[FIRST_BUCKETS];
  private int count;
  private @Nullable Block firstDirty;

  private static int bucket(long number, int buckets) {
    // Neighbours are in different stripes, so that the low bits alone would leave buckets empty.
    return (int) (BlockIndex.scatter(number) >>> 40) & (buckets - 1);
  }

  /** Finds a block, if it is known. */
  @Nullable Block get(long number) {
    Block block = buckets[bucket(number, buckets.length)];
    while (block != null && block.number != number) {
      block = block.sameBucket;
    }
    return block;
  }

  /** Adds a block that is not there. */
  void add(Block block) {
    if (count == buckets.length) {
      grow();
    }
    int at = bucket(block.number, buckets.length);
    block.sameBucket = buckets[at];
    buckets[at] = block;
    count++;
  }

  private void grow() {
    @Nullable Block[] more = new @Nullable Block[buckets.length * 2];
    forEach(
        block -> {
          int at = bucket(block.number, more.length);
          block.sameBucket = more[at];
          more[at] = block;
        });
    buckets = more;
  }

  /** Forgets a block. */
  void remove(Block block) {
    int at = bucket(block.number, buckets.length);
    Block before = buckets[at];
    if (before == block) {
      buckets[at] = block.sameBucket;
      count--;
      return;
    }
    while (before != null && before.sameBucket != block) {
      before = before.sameBucket;
    }
    if (before != null) {
      before.sameBucket = block.sameBucket;
      count--;
    }
  }

  /** Passes every block to an action, which may remove it. */
  void forEach(Consumer<Block> action) {
    for (Block first : buckets) {
      Block block = first;
      while (block != null) {
        Block next = block.sameBucket;
        action.accept(block);
        block = next;
      }
    }
  }

  /** Passes every block with dirty or writing sectors to an action. */
  void forEachDirty(Consumer<Block> action) {
    for (Block block = firstDirty; block != null; block = block.nextDirty) {
      action.accept(block);
    }
  }

  /** Puts a block into the list of those with dirty or writing sectors. */
  void list(Block block) {
    block.nextDirty = firstDirty;
    if (firstDirty != null) {
      firstDirty.previousDirty = block;
    }
    firstDirty = block;
  }

  /** Takes a block off that list. */
  void unlist(Block block) {
    if (block.previousDirty == null) {
      firstDirty = block.nextDirty;
    } else {
      block.previousDirty.nextDirty = block.nextDirty;
    }
    if (block.nextDirty != null) {
      block.nextDirty.previousDirty = block.previousDirty;
    }
    block.nextDirty = null;
    block.previousDirty = null;
  }
}
