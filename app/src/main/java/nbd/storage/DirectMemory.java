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
 * The memory outside the heap that the JVM gives out (-XX:MaxDirectMemorySize). Requests and RAM
 * disks leave a reserve of it, from which new connections are greeted and errors are sent; unless
 * the JVM does not tell how much is used, for want of the module jdk.management. Any thread may
 * call.
 */
public final class DirectMemory {
  /** This JVM's. */
  public static final DirectMemory JVM =
      ModuleLayer.boot().findModule("jdk.management").isPresent()
          ? new DirectMemory(Told.limit(), Told.used())
          : new DirectMemory(Runtime.getRuntime().maxMemory(), () -> 0);

  private static final long MOST_RESERVED = 32L << 20;

  private static final long COLLECTION_PAUSE_NANOS = 1_000_000_000;

  /** What is collected is freed by a thread of the JVM, a moment later. */
  private static final int FREEING_ATTEMPTS = 20;

  private static final long FREEING_PAUSE_MILLIS = 5;

  private final long limit;
  private final long reserve;
  private final LongSupplier used;
  private final ReentrantLock lock = new ReentrantLock();

  /** When the last collection ended; guarded by the lock. */
  private long collected = System.nanoTime() - COLLECTION_PAUSE_NANOS;

  /**
   * Memory with a limit.
   *
   * @param limit in bytes
   * @param used how many bytes of it are in use
   */
  public DirectMemory(long limit, LongSupplier used) {
    this.limit = limit;
    this.reserve = Math.min(MOST_RESERVED, limit / 8);
    this.used = used;
  }

  /** The bytes that there are in all. */
  public long limit() {
    return limit;
  }

  /**
   * Allocates a big-endian buffer, and leaves the reserve alone. Threads that do so at the same
   * time may take one buffer each of the reserve.
   *
   * @throws NbdException ENOMEM if no more is left
   */
  public ByteBuffer allocate(int bytes) throws NbdException {
    if (!fits(bytes) && !fitsAfterCollection(bytes)) {
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
   * Has buffers collected that nobody has any more: they count until then. Seldom, since it stops
   * everybody; who comes in between gets nothing.
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
   * @throws NbdException ENOMEM if that is used up, too
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

  /** What the JVM tells, where it has the module for that. */
  private static final class Told {
    /** As many bytes as the heap may have, if the user does not say. */
    static long limit() {
      HotSpotDiagnosticMXBean options =
          ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class);
      long told = Long.parseLong(options.getVMOption("MaxDirectMemorySize").getValue());
      return told == 0 ? Runtime.getRuntime().maxMemory() : told;
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
