package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.BitSet;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;

/**
 * One block of a connection's private cache, byte by byte known or not, and written or not: a write
 * to a part of a block says nothing of its other bytes, and writes nothing else back.
 */
final class CachedBlock {
  private final byte[] data;
  private final BitSet known;
  private final BitSet written;

  CachedBlock(int size) {
    data = new byte[size];
    known = new BitSet(size);
    written = new BitSet(size);
  }

  boolean knows(int from, int count) {
    return known.nextClearBit(from) >= from + count;
  }

  boolean hasWritten() {
    return !written.isEmpty();
  }

  /** Takes what the connection writes. */
  void write(ByteBuffer from, int at, int count) {
    from.get(data, at, count);
    known.set(at, at + count);
    written.set(at, at + count);
  }

  /** Takes what was fetched, where it knows nothing yet. */
  void fill(byte[] fetched) {
    int from = known.nextClearBit(0);
    while (from < fetched.length) {
      int end = known.nextSetBit(from);
      int to = end < 0 ? fetched.length : Math.min(end, fetched.length);
      System.arraycopy(fetched, from, data, from, to - from);
      known.set(from, to);
      from = known.nextClearBit(to);
    }
  }

  /** Lays what it knows over what was fetched. */
  void overlay(byte[] fetched) {
    for (int i = known.nextSetBit(0); i >= 0 && i < fetched.length; i = known.nextSetBit(i + 1)) {
      fetched[i] = data[i];
    }
  }

  void read(ByteBuffer into, int at, int count) {
    into.put(data, at, count);
  }

  /** Forgets a part, written or not. */
  void forget(int from, int count) {
    known.clear(from, from + count);
    written.clear(from, from + count);
  }

  /** Writes back what was written; each piece that succeeded is not written again. */
  void writeBack(Handle to, long offset) throws IOException {
    int from = written.nextSetBit(0);
    while (from >= 0) {
      int end = written.nextClearBit(from);
      to.write(ByteBuffer.wrap(data, from, end - from), offset + from, CommandFlags.NONE);
      written.clear(from, end);
      from = written.nextSetBit(end);
    }
  }
}
