package nbd.cache;

import java.nio.ByteBuffer;

/**
 * The memory of one block, off the heap. Never handed to storage, which may be slow: only copied to
 * and from, under the lock of the block that has it.
 *
 * @param chunk shared with other frames, so that only its absolute methods may be used
 * @param base where in the chunk it begins
 */
record Frame(ByteBuffer chunk, int base) {
  /** Copies data out of the block, and moves the buffer's position. */
  void read(int inBlock, ByteBuffer into, int count) {
    into.put(into.position(), chunk, base + inBlock, count);
    into.position(into.position() + count);
  }

  /** Copies data into the block; the buffer stays as it is. */
  void write(int inBlock, ByteBuffer from, int at, int count) {
    chunk.put(base + inBlock, from, at, count);
  }
}
