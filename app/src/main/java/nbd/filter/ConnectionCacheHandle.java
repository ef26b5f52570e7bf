package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.locks.ReentrantLock;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/**
 * One connection's private cache, in blocks. A flush writes back the connection's writes, forgets
 * all blocks, and flushes the storage.
 *
 * <p>The lock guards all fields. It is held while blocks are written back, but not while one is
 * fetched: so a read in flight during a flush may leave older data in the cache, as storage of this
 * kind may. That data is never older than the connection's own writes.
 */
final class ConnectionCacheHandle extends FilterHandle {
  private static final int LARGEST_ZERO_CACHED = 1 << 20;

  private final ReentrantLock lock = new ReentrantLock();
  private final Map<Long, CachedBlock> blocks = new TreeMap<>();
  private final List<Fetch> fetches = new ArrayList<>();
  private final int blockSize;
  private final long capacity;

  /** A block that is being fetched. */
  private static final class Fetch {
    final long block;

    /** True once the connection has changed the storage since the fetch began. */
    boolean outdated;

    Fetch(long block) {
      this.block = block;
    }
  }

  ConnectionCacheHandle(Handle next, long capacity) {
    super(next, next.facts().with(shown(next.capabilities())));
    this.blockSize = Math.max(4096, next.blockSizes().minimum());
    this.capacity = capacity;
  }

  /**
   * Takes away the capabilities that a private cache cannot keep: other connections see a write
   * only after a flush, and extents may differ from the storage's. There is always a flush, since
   * there is always something to write back or to forget.
   */
  private static Capabilities shown(Capabilities below) {
    return below
        .without(Capability.MULTI_CONN, Capability.FAST_ZERO, Capability.EXTENTS, Capability.FUA)
        .with(Capability.FLUSH);
  }

  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    if (patience != Patience.WAIT) {
      return Outcome.DECLINED;
    }
    long length = operation.length();
    switch (operation.command()) {
      case READ -> copy(operation.data(), operation.offset(), false);
      case WRITE -> copy(operation.data(), operation.offset(), true);
      case WRITE_ZEROES -> {
        if (length <= LARGEST_ZERO_CACHED) {
          copy(ByteBuffer.allocate((int) length), operation.offset(), true);
        } else {
          clear(operation);
        }
      }
      case TRIM -> clear(operation);
      case FLUSH -> flush(operation);
      default -> next.run(operation);
    }
    return Outcome.DONE;
  }

  /** Reads from, or writes to, one block after the other. */
  private void copy(ByteBuffer data, long offset, boolean writes) throws IOException {
    lock.lock();
    try {
      long at = offset;
      while (data.hasRemaining()) {
        long number = at / blockSize;
        int inBlock = (int) (at % blockSize);
        int count = Math.min(data.remaining(), blockSize - inBlock);
        if (writes) {
          block(number).write(data, inBlock, count);
        } else {
          known(number, inBlock, count).read(data, inBlock, count);
        }
        at += count;
      }
    } finally {
      lock.unlock();
    }
  }

  /** Returns a block that knows these bytes; fetches it if need be, without the lock. */
  private CachedBlock known(long number, int inBlock, int count) throws IOException {
    CachedBlock block = blocks.get(number);
    while (block == null || !block.knows(inBlock, count)) {
      byte[] fetched = new byte[(int) Math.min(blockSize, size() - number * blockSize)];
      Fetch fetch = new Fetch(number);
      fetches.add(fetch);
      lock.unlock();
      try {
        next.read(ByteBuffer.wrap(fetched), number * blockSize);
      } finally {
        lock.lock();
        fetches.remove(fetch);
      }
      if (!fetch.outdated) {
        block(number).fill(fetched);
      }
      block = blocks.get(number);
    }
    return block;
  }

  /** Returns a block; makes room for a new one by forgetting all that were only read, or all. */
  private CachedBlock block(long number) throws IOException {
    CachedBlock present = blocks.get(number);
    if (present != null) {
      return present;
    }
    if (isFull()) {
      blocks.values().removeIf(block -> !block.hasWritten());
    }
    if (isFull()) {
      writeBackAndForget();
    }
    CachedBlock made = new CachedBlock(blockSize);
    blocks.put(number, made);
    return made;
  }

  private boolean isFull() {
    return (blocks.size() + 1L) * blockSize > capacity;
  }

  private void writeBackAndForget() throws IOException {
    for (Map.Entry<Long, CachedBlock> entry : blocks.entrySet()) {
      long number = entry.getKey();
      if (entry.getValue().hasWritten()) {
        fetches.forEach(fetch -> fetch.outdated |= fetch.block == number);
        entry.getValue().writeBack(next, number * blockSize);
      }
    }
    blocks.clear();
  }

  /** Trims or zeroes the storage itself. */
  private void clear(Operation operation) throws IOException {
    lock.lock();
    try {
      writeBackAndForget();
      fetches.forEach(fetch -> fetch.outdated = true);
      next.run(operation);
    } finally {
      lock.unlock();
    }
  }

  private void flush(Operation operation) throws IOException {
    lock.lock();
    try {
      writeBackAndForget();
    } finally {
      lock.unlock();
    }
    if (next.capabilities().has(Capability.FLUSH)) {
      next.run(operation);
    }
  }

  /** Writes back, since nobody else knows the connection's writes; does not flush. */
  @Override
  public void close() throws IOException {
    lock.lock();
    try (next) {
      writeBackAndForget();
    } finally {
      lock.unlock();
    }
  }
}
