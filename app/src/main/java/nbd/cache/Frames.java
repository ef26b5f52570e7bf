package nbd.cache;

import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.LinkedHashSet;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The memory of the cache, for all exports together, and the choice of what has to leave it:
 * S3-FIFO (Yang and others, "FIFO queues are all you need for cache eviction", 2023). What is new
 * enters a small queue, of a tenth; what was used again by the time it gets to the end goes on to
 * the main one, and the rest leaves, so that a scan goes through the small queue alone. Of what has
 * left that way the names are remembered for a while: what comes back soon enters the main queue at
 * once. At the end of the main queue, what was used goes round again.
 *
 * <p>Memory is taken in chunks when it is first needed, and not given back.
 *
 * <p>Invariant, guarded by the lock: a block that has a frame is in one queue, or with the thread
 * that has taken it off to evict it. The lock is taken under that of a {@link Stripe}, so no other
 * is taken under it.
 */
final class Frames {
  /** Uses that count. */
  static final int MOST_USES = 3;

  private static final int USES_TO_STAY = 2;
  private static final int MOST_TRIES_IN_SMALL = 32;
  private static final int CHUNK = 1 << 20;

  private final int blockSize;
  private final int capacity;
  private final int smallTarget;

  /** Blocks with dirty or writing sectors, which cannot be evicted. */
  private final AtomicInteger dirty = new AtomicInteger();

  private final ReentrantLock lock = new ReentrantLock();
  private final ArrayDeque<Frame> free = new ArrayDeque<>();
  private int made;
  private int limit;
  private final Queue small = new Queue();
  private final Queue main = new Queue();
  private final Set<Name> left = new LinkedHashSet<>();

  /** A block that is not there any more. */
  private record Name(int export, long number) {}

  /** Blocks in the order in which they entered. */
  static final class Queue {
    private @Nullable Block newest;
    private @Nullable Block oldest;
    private int count;

    private void add(Block block) {
      block.queue = this;
      block.newer = null;
      block.older = newest;
      if (newest == null) {
        oldest = block;
      } else {
        newest.newer = block;
      }
      newest = block;
      count++;
    }

    private void remove(Block block) {
      if (block.newer == null) {
        newest = block.older;
      } else {
        block.newer.older = block.older;
      }
      if (block.older == null) {
        oldest = block.newer;
      } else {
        block.older.newer = block.newer;
      }
      block.newer = null;
      block.older = null;
      block.queue = null;
      count--;
    }

    private @Nullable Block poll() {
      Block block = oldest;
      if (block != null) {
        remove(block);
      }
      return block;
    }
  }

  Frames(int blockSize, int blocks) {
    this.blockSize = blockSize;
    this.capacity = blocks;
    this.limit = blocks;
    this.smallTarget = Math.max(1, blocks / 10);
  }

  /** How many blocks there may be. */
  int capacity() {
    return capacity;
  }

  /** How many blocks may be dirty before writers have to wait. */
  int dirtyLimit() {
    return Math.max(1, capacity / 4 * 3);
  }

  /** How many blocks may be dirty before they are written back in the background. */
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

  /** The bytes that are taken, whether they are in use or not. */
  long bytes() {
    lock.lock();
    try {
      return (long) made * blockSize;
    } finally {
      lock.unlock();
    }
  }

  /**
   * A frame that is free, or was freed by evicting a block. Never waits. The caller holds no lock
   * of a stripe.
   *
   * @return null if all are in use by blocks that cannot be evicted now
   */
  @Nullable Frame take() {
    int tries = -1;
    int triesInSmall = 0;
    while (true) {
      Block candidate;
      Queue from;
      lock.lock();
      try {
        Frame frame = free.pollLast();
        if (frame != null) {
          return frame;
        }
        if (made < limit && makeChunk()) {
          return free.pollLast();
        }
        if (tries < 0) {
          tries = small.count + main.count;
        }
        // What cannot be evicted goes round in its queue: at times look into the other one.
        boolean hasTriedSmall = triesInSmall >= Math.min(MOST_TRIES_IN_SMALL, small.count);
        from = !hasTriedSmall && (small.count >= smallTarget || main.count == 0) ? small : main;
        triesInSmall = from == small ? triesInSmall + 1 : 0;
        candidate = tries-- > 0 ? candidate(from) : null;
        if (candidate == null && tries > 0) {
          from = from == small ? main : small;
          candidate = candidate(from);
        }
      } finally {
        lock.unlock();
      }
      if (candidate == null) {
        return null;
      }
      Frame frame = candidate.cache.index.evict(candidate);
      if (frame != null) {
        if (from == small) {
          remember(candidate);
        }
        return frame;
      }
      if (candidate.frame != null) {
        putBack(candidate, from);
      }
    }
  }

  /** The next to leave, off its queue; those that were used move on. */
  private @Nullable Block candidate(Queue from) {
    Block block = from.poll();
    while (block != null) {
      if (from == small && block.uses >= USES_TO_STAY) {
        block.uses = 0;
        main.add(block);
      } else if (from == main && block.uses > 0) {
        block.uses--;
        main.add(block);
      } else {
        return block;
      }
      block = from.poll();
    }
    return null;
  }

  private void remember(Block block) {
    lock.lock();
    try {
      left.add(new Name(block.cache.id, block.number));
      if (left.size() > capacity) {
        Iterator<Name> oldest = left.iterator();
        oldest.next();
        oldest.remove();
      }
    } finally {
      lock.unlock();
    }
  }

  private void putBack(Block block, Queue to) {
    lock.lock();
    try {
      if (block.queue == null) {
        to.add(block);
      }
    } finally {
      lock.unlock();
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
  void give(Block block, Frame frame) {
    block.frame = frame;
    block.uses = 0;
    lock.lock();
    try {
      if (block.queue == null) {
        boolean isBack = left.remove(new Name(block.cache.id, block.number));
        (isBack ? main : small).add(block);
      }
    } finally {
      lock.unlock();
    }
  }

  /** Takes a block that is forgotten off its queue. */
  void leave(Block block) {
    lock.lock();
    try {
      if (block.queue != null) {
        block.queue.remove(block);
      }
    } finally {
      lock.unlock();
    }
  }

  /** Takes a frame back that no block has. */
  void giveBack(Frame frame) {
    lock.lock();
    try {
      free.addLast(frame);
    } finally {
      lock.unlock();
    }
  }
}
