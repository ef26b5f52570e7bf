package nbd.cache;

import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.IntFunction;
import org.tinylog.Logger;

/**
 * Buffers for calls to the storage: a few are kept for the next calls, so that a miss need not
 * allocate and clear one. Any thread may take one and give it back.
 *
 * <p>Where the JVM has no more direct memory, which the cache itself may have taken, they are of
 * its heap: what is dirty has to be written back all the same.
 */
final class Buffers {
  private static final int SMALLEST_SHIFT = 12;
  private static final int LARGEST_SHIFT = 22;
  private static final int MOST_KEPT = 4 << 20;

  private final ReentrantLock lock = new ReentrantLock();
  private final ArrayDeque<ByteBuffer>[] kept;
  private final IntFunction<ByteBuffer> direct;
  private long bytes;

  Buffers() {
    this(ByteBuffer::allocateDirect);
  }

  /** For tests that say how much direct memory there is. */
  @SuppressWarnings({"unchecked", "rawtypes"}) // an array of a generic type
  Buffers(IntFunction<ByteBuffer> direct) {
    this.direct = direct;
    kept = new ArrayDeque[LARGEST_SHIFT + 1];
    for (int shift = SMALLEST_SHIFT; shift <= LARGEST_SHIFT; shift++) {
      kept[shift] = new ArrayDeque<>();
    }
  }

  private static int shift(int size) {
    return Math.max(SMALLEST_SHIFT, 32 - Integer.numberOfLeadingZeros(size - 1));
  }

  /** A buffer of at least the size, with that as its limit; its content is undefined. */
  ByteBuffer take(int size) {
    int shift = shift(size);
    if (shift <= LARGEST_SHIFT) {
      lock.lock();
      try {
        ByteBuffer found = kept[shift].pollLast();
        if (found != null) {
          bytes -= found.capacity();
          return found.clear().limit(size);
        }
      } finally {
        lock.unlock();
      }
    }
    try {
      return direct.apply(1 << shift).limit(size);
    } catch (OutOfMemoryError none) {
      Logger.debug(none);
      return ByteBuffer.allocate(size);
    }
  }

  /** Takes a buffer back that nobody uses any more. */
  void giveBack(ByteBuffer buffer) {
    if (!buffer.isDirect()) {
      return;
    }
    int shift = shift(buffer.capacity());
    lock.lock();
    try {
      if (shift <= LARGEST_SHIFT && bytes + buffer.capacity() <= MOST_KEPT) {
        bytes += buffer.capacity();
        kept[shift].addLast(buffer);
      }
    } finally {
      lock.unlock();
    }
  }
}
