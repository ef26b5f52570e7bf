package nbd.tls;

import java.nio.ByteBuffer;
import java.util.Deque;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Buffers for records on their way out, lent to a channel while it writes: an idle connection keeps
 * none. Any thread may take and give back.
 *
 * <p>On the heap, since the JDK's ciphers work on arrays, and copy what is elsewhere.
 *
 * <p>Invariant: {@code kept} is at least the number of buffers in {@code idle}, and at most {@link
 * #MOST_KEPT}.
 */
final class RecordBuffers {
  /** The largest record that the JDK makes or takes, in bytes. */
  static final int RECORD_BYTES = 16_709;

  /** Eight records: half of a usual large reply by one system call. */
  private static final int BYTES = 8 * RECORD_BYTES;

  private static final int MOST_KEPT = 64;

  private final Deque<ByteBuffer> idle = new ConcurrentLinkedDeque<>();
  private final AtomicInteger kept = new AtomicInteger();

  /** Lends an empty buffer. */
  ByteBuffer take() {
    ByteBuffer used = idle.pollFirst();
    if (used == null) {
      return ByteBuffer.allocate(BYTES);
    }
    kept.decrementAndGet();
    return used.clear();
  }

  /** Takes back what {@link #take} lent. */
  void giveBack(ByteBuffer buffer) {
    if (kept.incrementAndGet() <= MOST_KEPT) {
      idle.addFirst(buffer);
    } else {
      kept.decrementAndGet();
    }
  }
}
