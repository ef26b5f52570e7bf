package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.BitSet;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;

/**
 * One block of a connection's private cache. Each byte is known or not, and written or not: a write
 * of a part of a block makes no other bytes known, and writes no others back.
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

  void read(ByteBuffer into, int at, int count) {
    into.put(data, at, count);
  }

  void write(ByteBuffer from, int at, int count) {
    from.get(data, at, count);
    known.set(at, at + count);
    written.set(at, at + count);
  }

  /** Takes fetched data for the bytes that are not known. */
  void fill(byte[] fetched) {
    for (int i = known.nextClearBit(0); i < fetched.length; i = known.nextClearBit(i)) {
      data[i] = fetched[i];
      known.set(i);
    }
  }

  /** Writes back the written bytes; a piece that succeeded is not written again. */
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
