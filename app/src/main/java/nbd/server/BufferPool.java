package nbd.server;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Native buffers for all connections, kept for the next request when one is done with, since
 * allocating costs more than a small request. Any thread may take and give back.
 *
 * <p>Invariant: what is kept is at most {@code mostKept} bytes; what is out is bounded by those who
 * take ({@link ServerMemory}).
 */
final class BufferPool {
  private static final int SMALLEST_SHIFT = 12;
  private static final int LARGEST_SHIFT = 26;

  /** More is not worth keeping: so much is seldom needed at a time. */
  private static final long MOST_KEPT = 128L << 20;

  /** For each size, a power of two, the idle buffers: the last one used first, for the caches. */
  private final List<Deque<ByteBuffer>> idle;

  private final AtomicLong kept = new AtomicLong();
  private final long mostKept;

  /**
   * Keeps nothing yet.
   *
   * @param bytes what may be kept at most, if the pool does not keep less by itself
   */
  BufferPool(long bytes) {
    mostKept = Math.min(bytes, MOST_KEPT);
    List<Deque<ByteBuffer>> queues = new ArrayList<>();
    for (int shift = SMALLEST_SHIFT; shift <= LARGEST_SHIFT; shift++) {
      queues.add(new ConcurrentLinkedDeque<>());
    }
    idle = List.copyOf(queues);
  }

  /**
   * Lends a direct big-endian buffer.
   *
   * @param length in bytes, at most 64 MiB; it is the buffer's limit, its capacity may be larger
   */
  ByteBuffer take(int length) {
    int index = index(length);
    ByteBuffer used = idle.get(index).pollFirst();
    if (used == null) {
      return ByteBuffer.allocateDirect(1 << (index + SMALLEST_SHIFT)).limit(length);
    }
    kept.addAndGet(-used.capacity());
    return used.clear().limit(length);
  }

  /** Takes back what {@link #take} lent. */
  void giveBack(ByteBuffer buffer) {
    if (kept.addAndGet(buffer.capacity()) <= mostKept) {
      idle.get(index(buffer.capacity())).addFirst(buffer);
    } else {
      kept.addAndGet(-buffer.capacity());
    }
  }

  /** The memory that a buffer of so many bytes takes. */
  static int capacityFor(int length) {
    return 1 << (index(length) + SMALLEST_SHIFT);
  }

  private static int index(int length) {
    int shift = length <= 1 ? 0 : 32 - Integer.numberOfLeadingZeros(length - 1);
    if (length < 0 || shift > LARGEST_SHIFT) {
      throw new IllegalArgumentException("buffer of " + length + " bytes");
    }
    return Math.max(SMALLEST_SHIFT, shift) - SMALLEST_SHIFT;
  }
}
