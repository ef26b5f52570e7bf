package nbd.storage;

import java.nio.ByteBuffer;

/** Fills buffers with zeroes, by copying them in bulk. */
public final class Zeroes {
  private static final ByteBuffer SOURCE = ByteBuffer.allocateDirect(1 << 16).asReadOnlyBuffer();

  private Zeroes() {}

  /** Puts zero bytes at the buffer's position, and moves it. */
  public static void put(ByteBuffer into, int count) {
    int left = count;
    while (left > 0) {
      int step = Math.min(left, SOURCE.capacity());
      into.put(into.position(), SOURCE, 0, step);
      into.position(into.position() + step);
      left -= step;
    }
  }
}
