package nbd.storage;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.atomic.AtomicLong;
import nbd.protocol.NbdException;
import org.jspecify.annotations.Nullable;

/**
 * A pool of native buffers. It keeps buffers that were given back for the next request, since
 * allocating one costs more than a small request. Any thread may call.
 *
 * <p>Invariant: the idle buffers have at most {@code mostKept} bytes. The users bound those that
 * are lent.
 */
public final class BufferPool {
  private static final int SMALLEST_SHIFT = 12;
  private static final int LARGEST_SHIFT = 26;

  /** More is seldom needed at a time. */
  private static final long MOST_KEPT = 128L << 20;

  /** Kept even if nobody needs it. */
  private static final long SPARE = 4L << 20;

  /** The idle buffers of each size, a power of two: the last used first, for the caches. */
  private final List<Deque<ByteBuffer>> idle;

  private final AtomicLong kept = new AtomicLong();
  private final long mostKept;
  private final DirectMemory memory;

  /** The least of {@code kept} since the last {@link #dropUnneeded}, or about that. */
  private volatile long leastKept;

  /** Makes an empty pool that keeps at most so many bytes, or fewer. */
  public BufferPool(long bytes) {
    this(bytes, DirectMemory.JVM);
  }

  /** Makes a pool for a test, with other memory than the JVM's. */
  public BufferPool(long bytes, DirectMemory memory) {
    this.memory = memory;
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
   * @throws NbdException ENOMEM if the JVM has none left
   */
  public ByteBuffer take(int length) throws NbdException {
    ByteBuffer used = takeUsed(length);
    return (used == null ? memory.allocate(capacityFor(length)) : used).limit(length);
  }

  /**
   * Lends a buffer that a connection cannot do without, for its input or an error.
   *
   * @throws NbdException ENOMEM if the JVM has nothing left at all
   */
  public ByteBuffer takeReserved(int length) throws NbdException {
    ByteBuffer used = takeUsed(length);
    return (used == null ? memory.allocateReserved(capacityFor(length)) : used).limit(length);
  }

  private @Nullable ByteBuffer takeUsed(int length) {
    ByteBuffer used = idle.get(index(length)).pollFirst();
    if (used == null) {
      return null;
    }
    long left = kept.addAndGet(-used.capacity());
    if (left < leastKept) {
      leastKept = left;
    }
    return used.clear();
  }

  /** Takes back a buffer that was lent, which nobody uses any more. */
  public void giveBack(ByteBuffer buffer) {
    boolean keeps = kept.addAndGet(buffer.capacity()) <= mostKept;
    try {
      if (keeps) {
        idle.get(index(buffer.capacity())).addFirst(buffer);
      }
    } catch (OutOfMemoryError none) {
      keeps = false;
    } finally {
      if (!keeps) {
        kept.addAndGet(-buffer.capacity());
      }
    }
  }

  /**
   * Drops idle buffers, the largest first, as many bytes as nobody has needed since the last call.
   * The collector frees them. One thread calls this.
   *
   * @return the bytes
   */
  public long dropUnneeded() {
    long unneeded = leastKept - SPARE;
    long dropped = 0;
    for (Deque<ByteBuffer> buffers : idle.reversed()) {
      ByteBuffer oldest = buffers.peekLast();
      while (oldest != null && dropped + oldest.capacity() <= unneeded) {
        if (buffers.removeLastOccurrence(oldest)) {
          dropped += oldest.capacity();
        }
        oldest = buffers.peekLast();
      }
    }
    leastKept = kept.addAndGet(-dropped);
    return dropped;
  }

  /** Returns the capacity of a buffer of so many bytes. */
  public static int capacityFor(int length) {
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
