package nbd.tls;

import java.nio.ByteBuffer;
import java.util.Deque;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Buffers for encrypted records, lent to a channel while it writes, so that an idle connection
 * keeps none. They are on the heap, because the JDK's ciphers copy what is not in an array. Any
 * thread may take a buffer and give it back.
 *
 * <p>Invariant: {@code KEPT} is at least the number of buffers in {@code IDLE}.
 */
final class RecordBuffers {
  /** The largest record that the JDK makes or takes, in bytes. */
  static final int RECORD_BYTES = 16_709;

  /** Eight records: half of a usual large reply by one system call. */
  private static final int BYTES = 8 * RECORD_BYTES;

  private static final int MOST_KEPT = 64;

  private static final Deque<ByteBuffer> IDLE = new ConcurrentLinkedDeque<>();
  private static final AtomicInteger KEPT = new AtomicInteger();

  private RecordBuffers() {}

  /** Lends an empty buffer. */
  static ByteBuffer take() {
    ByteBuffer used = IDLE.pollFirst();
    if (used == null) {
      return ByteBuffer.allocate(BYTES);
    }
    KEPT.decrementAndGet();
    return used.clear();
  }

  /** Takes back a buffer that nobody uses any more. */
  static void giveBack(ByteBuffer buffer) {
    if (KEPT.incrementAndGet() <= MOST_KEPT) {
      IDLE.addFirst(buffer);
    } else {
      KEPT.decrementAndGet();
    }
  }
}
