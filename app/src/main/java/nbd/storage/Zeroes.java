package nbd.storage;

import java.nio.ByteBuffer;

/** A source of zero bytes, which are copied or sent in bulk. */
public final class Zeroes {
  private static final ByteBuffer SOURCE = ByteBuffer.allocateDirect(1 << 16).asReadOnlyBuffer();

  private Zeroes() {}

  /** Returns at least one zero byte, and at most {@code count}, which is not 0. */
  public static ByteBuffer atMost(long count) {
    return SOURCE.slice(0, (int) Math.min(count, SOURCE.capacity()));
  }

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
