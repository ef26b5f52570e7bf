package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
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
 * One connection's private cache, in blocks. Its flush writes back what the connection has written,
 * forgets everything, and flushes what lies below.
 *
 * <p>The lock guards the blocks, and is held while they are written back, but not while data is
 * fetched: so a read that is in flight over a flush puts down what it fetched before, as storage of
 * this kind may. Only the connection's own writes overtake its fetches.
 */
final class ConnectionCacheHandle extends FilterHandle {
  private static final int LARGEST_ZERO_CACHED = 1 << 20;

  private final ReentrantLock lock = new ReentrantLock();
  private final NavigableMap<Long, CachedBlock> blocks = new TreeMap<>();
  private final List<Fetch> fetches = new ArrayList<>();
  private final int blockSize;
  private final long capacity;

  /** A block that is being fetched. */
  private static final class Fetch {
    final long block;
    boolean overtaken;

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
   * Takes away what a private cache cannot keep: others see a write only after a flush, so there is
   * no multi-conn, and FUA by a flush only; and extents may differ from those below. There is
   * always a flush, since there is always something to write back or to forget.
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
    switch (operation.command()) {
      case READ -> readBlocks(operation.data(), operation.offset());
      case WRITE -> writeBlocks(operation.data(), operation.offset());
      case WRITE_ZEROES -> clearBlocks(operation);
      case TRIM -> clearBelow(operation);
      case FLUSH -> flushBlocks();
      default -> next.run(operation);
    }
    return Outcome.DONE;
  }

  private void readBlocks(ByteBuffer into, long offset) throws IOException {
    long at = offset;
    while (into.hasRemaining()) {
      int inBlock = (int) (at % blockSize);
      int count = Math.min(into.remaining(), blockSize - inBlock);
      readFromBlock(into, at / blockSize, inBlock, count);
      at += count;
    }
  }

  private void readFromBlock(ByteBuffer into, long number, int inBlock, int count)
      throws IOException {
    Fetch fetch = new Fetch(number);
    lock.lock();
    try {
      CachedBlock block = blocks.get(number);
      if (block != null && block.knows(inBlock, count)) {
        block.read(into, inBlock, count);
        return;
      }
      fetches.add(fetch);
    } finally {
      lock.unlock();
    }
    byte[] fetched = new byte[(int) Math.min(blockSize, size() - number * blockSize)];
    boolean complete = false;
    try {
      next.read(ByteBuffer.wrap(fetched), number * blockSize);
      complete = true;
    } finally {
      lock.lock();
      try {
        fetches.remove(fetch);
        if (complete) {
          putDown(fetch, fetched);
        }
      } finally {
        lock.unlock();
      }
    }
    into.put(fetched, inBlock, count);
  }

  private void putDown(Fetch fetch, byte[] fetched) throws IOException {
    if (!fetch.overtaken) {
      makeRoom();
      block(fetch.block).fill(fetched);
    }
    CachedBlock block = blocks.get(fetch.block);
    if (block != null) {
      block.overlay(fetched);
    }
  }

  private void writeBlocks(ByteBuffer from, long offset) throws IOException {
    lock.lock();
    try {
      long at = offset;
      while (from.hasRemaining()) {
        int inBlock = (int) (at % blockSize);
        int count = Math.min(from.remaining(), blockSize - inBlock);
        makeRoom();
        block(at / blockSize).write(from, inBlock, count);
        overtake(at / blockSize, at / blockSize);
        at += count;
      }
    } finally {
      lock.unlock();
    }
  }

  private void clearBlocks(Operation operation) throws IOException {
    if (operation.length() <= LARGEST_ZERO_CACHED) {
      writeBlocks(ByteBuffer.allocate((int) operation.length()), operation.offset());
    } else {
      clearBelow(operation);
    }
  }

  private void clearBelow(Operation operation) throws IOException {
    lock.lock();
    try {
      next.run(operation);
      forget(operation.offset(), operation.length());
    } finally {
      lock.unlock();
    }
  }

  private void flushBlocks() throws IOException {
    lock.lock();
    try {
      writeBack();
      blocks.clear();
    } finally {
      lock.unlock();
    }
    if (next.capabilities().has(Capability.FLUSH)) {
      next.flush();
    }
  }

  /** Writes back, since nobody else knows what this connection has written; does not flush. */
  @Override
  public void close() throws IOException {
    try {
      lock.lock();
      try {
        writeBack();
      } finally {
        lock.unlock();
      }
    } finally {
      next.close();
    }
  }

  private CachedBlock block(long number) {
    return blocks.computeIfAbsent(number, n -> new CachedBlock(blockSize));
  }

  private void writeBack() throws IOException {
    for (Map.Entry<Long, CachedBlock> entry : blocks.entrySet()) {
      if (entry.getValue().hasWritten()) {
        overtake(entry.getKey(), entry.getKey());
      }
      entry.getValue().writeBack(next, entry.getKey() * blockSize);
    }
  }

  /** Keeps to the capacity: what was only read goes first, and goes all at once, which is cheap. */
  private void makeRoom() throws IOException {
    if ((blocks.size() + 1L) * blockSize <= capacity) {
      return;
    }
    blocks.values().removeIf(block -> !block.hasWritten());
    if ((blocks.size() + 1L) * blockSize > capacity) {
      writeBack();
      blocks.clear();
    }
  }

  private void forget(long offset, long length) {
    if (length == 0) {
      return;
    }
    long first = offset / blockSize;
    long last = (offset + length - 1) / blockSize;
    overtake(first, last);
    for (Map.Entry<Long, CachedBlock> entry : blocks.subMap(first, true, last, true).entrySet()) {
      long start = entry.getKey() * blockSize;
      int from = (int) Math.max(0, offset - start);
      int to = (int) Math.min(blockSize, offset + length - start);
      entry.getValue().forget(from, to - from);
    }
  }

  /** What is being fetched may be older than what this connection writes, or writes back. */
  private void overtake(long first, long last) {
    for (Fetch fetch : fetches) {
      if (fetch.block >= first && fetch.block <= last) {
        fetch.overtaken = true;
      }
    }
  }
}
