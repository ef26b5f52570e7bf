package nbd.cache;

import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.LinkedHashSet;
import java.util.SequencedSet;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The memory of the cache, for all exports together, and the choice of the blocks that have to
 * leave it: S3-FIFO (Yang and others, "FIFO queues are all you need for cache eviction", 2023). New
 * blocks enter a small queue, of a tenth; those that were used again by the time they get to its
 * end go on to the main queue, and the rest leaves, so that a scan goes through the small queue
 * alone. The names of those that have left that way are remembered for a while: a block that comes
 * back soon enters the main queue at once. At the end of the main queue, used blocks go round
 * again.
 *
 * <p>Memory is taken in chunks when it is first needed, and not given back.
 *
 * <p>Invariant, guarded by the monitor: a block that has a frame is in one queue, or with the
 * thread that has taken it off to evict it. The monitor is entered under the lock of a {@link
 * Stripe}, so no other lock is taken under it.
 */
final class Frames {
  /** The uses of a block that count. */
  static final int MOST_USES = 3;

  private static final int USES_TO_STAY = 2;
  private static final int MOST_TRIES_IN_SMALL = 32;
  private static final int CHUNK = 1 << 20;

  private final int blockSize;
  private final int capacity;
  private final int smallTarget;

  /** Blocks with dirty or writing sectors, which cannot be evicted. */
  private final AtomicInteger dirty = new AtomicInteger();

  private final ArrayDeque<Frame> free = new ArrayDeque<>();
  private int made;
  private int limit;
  private final SequencedSet<Block> small = new LinkedHashSet<>();
  private final SequencedSet<Block> main = new LinkedHashSet<>();
  private final SequencedSet<Name> left = new LinkedHashSet<>();

  /** A block that has left. */
  private record Name(int export, long number) {}

  Frames(int blockSize, int blocks) {
    this.blockSize = blockSize;
    this.capacity = blocks;
    this.limit = blocks;
    this.smallTarget = Math.max(1, blocks / 10);
  }

  /** Returns the number of blocks that there may be. */
  int capacity() {
    return capacity;
  }

  /** Returns the number of dirty blocks at which writers have to wait. */
  int dirtyLimit() {
    return Math.max(1, capacity / 4 * 3);
  }

  /** Returns the number of dirty blocks above which they are written back in the background. */
  int dirtyBackgroundLimit() {
    return Math.max(1, capacity / 4);
  }

  int dirty() {
    return dirty.get();
  }

  /** Counts a block that became dirty; true if it was the first above the background limit. */
  boolean countDirty() {
    return dirty.incrementAndGet() == dirtyBackgroundLimit() + 1;
  }

  void countClean() {
    dirty.decrementAndGet();
  }

  /** Returns the bytes that are taken, whether they are in use or not. */
  synchronized long bytes() {
    return (long) made * blockSize;
  }

  /**
   * Takes a frame that is free, or frees one by evicting a block. Never waits. The caller holds no
   * lock of a stripe.
   *
   * @return null if all are in use by blocks that cannot be evicted now
   */
  @Nullable Frame take() {
    int tries = -1;
    int triesInSmall = 0;
    while (true) {
      Block candidate;
      boolean fromSmall;
      synchronized (this) {
        Frame frame = free.pollLast();
        if (frame != null) {
          return frame;
        }
        if (made < limit && makeChunk()) {
          return free.pollLast();
        }
        if (tries < 0) {
          tries = small.size() + main.size();
        }
        // Blocks that cannot be evicted go round in their queue: at times it tries the other one.
        boolean hasTriedSmall = triesInSmall >= Math.min(MOST_TRIES_IN_SMALL, small.size());
        fromSmall = !hasTriedSmall && (small.size() >= smallTarget || main.isEmpty());
        triesInSmall = fromSmall ? triesInSmall + 1 : 0;
        candidate = tries-- > 0 ? candidate(fromSmall) : null;
        if (candidate == null && tries > 0) {
          fromSmall = !fromSmall;
          candidate = candidate(fromSmall);
        }
      }
      if (candidate == null) {
        return null;
      }
      Frame frame = candidate.cache.index.evict(candidate);
      if (frame != null) {
        if (fromSmall) {
          remember(candidate);
        }
        return frame;
      }
      if (candidate.frame != null) {
        enqueue(candidate, fromSmall);
      }
    }
  }

  /** Takes the next block to leave off its queue; those that were used move on. */
  private @Nullable Block candidate(boolean fromSmall) {
    SequencedSet<Block> from = fromSmall ? small : main;
    while (!from.isEmpty()) {
      Block block = from.removeFirst();
      if (fromSmall && block.uses >= USES_TO_STAY) {
        block.uses = 0;
      } else if (!fromSmall && block.uses > 0) {
        block.uses--;
      } else {
        return block;
      }
      main.add(block);
    }
    return null;
  }

  /** Puts a block at the end of a queue, if it is in none. */
  private synchronized void enqueue(Block block, boolean inSmall) {
    if (!small.contains(block) && !main.contains(block)) {
      (inSmall ? small : main).add(block);
    }
  }

  private synchronized void remember(Block block) {
    left.add(new Name(block.cache.id, block.number));
    if (left.size() > capacity) {
      left.removeFirst();
    }
  }

  private boolean makeChunk() {
    int frames = Math.min(Math.max(1, CHUNK / blockSize), limit - made);
    ByteBuffer chunk;
    try {
      chunk = ByteBuffer.allocateDirect(frames * blockSize);
    } catch (OutOfMemoryError none) {
      limit = made;
      Logger.warn(
          "cache: there is memory for {} blocks of {} bytes only; raise -XX:MaxDirectMemorySize",
          made,
          blockSize);
      return false;
    }
    made += frames;
    for (int i = frames - 1; i >= 0; i--) {
      free.addLast(new Frame(chunk, i * blockSize));
    }
    return true;
  }

  /** Gives a block a frame, with which it may be evicted. The lock of its stripe is held. */
  synchronized void give(Block block, Frame frame) {
    block.frame = frame;
    block.uses = 0;
    enqueue(block, !left.remove(new Name(block.cache.id, block.number)));
  }

  /** Takes a block that is forgotten off its queue. */
  synchronized void leave(Block block) {
    small.remove(block);
    main.remove(block);
  }

  /** Takes a frame back that no block has. */
  synchronized void giveBack(Frame frame) {
    free.addLast(frame);
  }
}
