package nbd.storage;

import com.sun.management.HotSpotDiagnosticMXBean;
import java.lang.management.BufferPoolMXBean;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;

/**
 * The memory outside the heap (-XX:MaxDirectMemorySize). Requests and RAM disks leave a reserve of
 * it for the greeting of new connections and for error replies. There is no reserve where the
 * module jdk.management is missing, which says how much is used. Any thread may call.
 */
public final class DirectMemory {
  /** The memory of this JVM. */
  public static final DirectMemory JVM =
      ModuleLayer.boot().findModule("jdk.management").isPresent()
          ? new DirectMemory(Management.limit(), Management.used())
          : new DirectMemory(Runtime.getRuntime().maxMemory(), () -> 0);

  private static final long MOST_RESERVED = 32L << 20;

  private static final long COLLECTION_PAUSE_NANOS = 1_000_000_000;

  /** A thread of the JVM frees collected buffers a moment after the collection. */
  private static final int FREEING_ATTEMPTS = 20;

  private static final long FREEING_PAUSE_MILLIS = 5;

  private final long limit;
  private final long reserve;
  private final LongSupplier used;
  private final ReentrantLock lock = new ReentrantLock();

  /** The end of the last collection; guarded by the lock. */
  private long collected = System.nanoTime() - COLLECTION_PAUSE_NANOS;

  /**
   * Memory with a limit.
   *
   * @param limit in bytes
   * @param used gives the bytes in use
   */
  public DirectMemory(long limit, LongSupplier used) {
    this.limit = limit;
    this.reserve = Math.min(MOST_RESERVED, limit / 8);
    this.used = used;
  }

  /** Returns the limit in bytes. */
  public long limit() {
    return limit;
  }

  /**
   * Allocates a big-endian buffer outside the reserve. Threads that do so at the same time may take
   * one buffer each of the reserve.
   *
   * @throws NbdException ENOMEM if no more is left
   */
  public ByteBuffer allocate(int bytes) throws NbdException {
    boolean mayFit = bytes <= limit - reserve;
    if (!fits(bytes) && !(mayFit && fitsAfterCollection(bytes))) {
      throw new NbdException(
          NbdError.ENOMEM,
          "no memory for %d bytes is left outside the heap; raise -XX:MaxDirectMemorySize"
              .formatted(bytes));
    }
    return allocateReserved(bytes);
  }

  private boolean fits(int bytes) {
    return bytes <= limit - reserve - used.getAsLong();
  }

  /**
   * Collects buffers that are no longer referenced, and counted until then. That stops all threads,
   * so it is done at most once a second.
   */
  private boolean fitsAfterCollection(int bytes) {
    lock.lock();
    try {
      if (!fits(bytes) && System.nanoTime() - collected > COLLECTION_PAUSE_NANOS) {
        System.gc();
        for (int i = 0; i < FREEING_ATTEMPTS && !fits(bytes); i++) {
          Thread.sleep(FREEING_PAUSE_MILLIS);
        }
        collected = System.nanoTime();
      }
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    } finally {
      lock.unlock();
    }
    return fits(bytes);
  }

  /**
   * Allocates a big-endian buffer, of the reserve if nothing else is left.
   *
   * @throws NbdException ENOMEM if the reserve is used up, too
   */
  public ByteBuffer allocateReserved(int bytes) throws NbdException {
    try {
      return ByteBuffer.allocateDirect(bytes);
    } catch (OutOfMemoryError none) {
      throw new NbdException(
          NbdError.ENOMEM,
          "no memory is left outside the heap, not even for a new connection;"
              + " raise -XX:MaxDirectMemorySize");
    }
  }

  /** The JVM's management, in a class of its own since its module may be missing. */
  private static final class Management {
    /** Returns the limit in bytes: the heap's, if the user set none. */
    static long limit() {
      HotSpotDiagnosticMXBean options =
          ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class);
      long set = Long.parseLong(options.getVMOption("MaxDirectMemorySize").getValue());
      return set == 0 ? Runtime.getRuntime().maxMemory() : set;
    }

    static LongSupplier used() {
      return ManagementFactory.getPlatformMXBeans(BufferPoolMXBean.class).stream()
          .filter(pool -> pool.getName().equals("direct"))
          .findAny()
          .<LongSupplier>map(pool -> pool::getMemoryUsed)
          .orElse(() -> 0);
    }
  }
}
