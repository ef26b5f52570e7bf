package nbd.threads;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ReadableByteChannel;
import java.nio.channels.SocketChannel;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;

/**
 * A connection's time slice. It gives its processor up after replies, to clients above all. A
 * virtual thread gives its carrier up, too, from time to time: the kernel does not preempt it for
 * other connections, and one whose client is quick might never wait. Used by the connection's
 * thread.
 */
public final class TimeSlice {
  /**
   * The slice between batches of replies. A longer one raises other connections' p99; and moving to
   * another carrier costs little after the processor was given up, since many requests have arrived
   * then.
   */
  private static final long REPLIES_NANOS = 30_000;

  /**
   * The slice before a read, for input that needs no reply: the data of options, payloads that are
   * dropped, TLS records without data.
   */
  private static final long READ_NANOS = 1_000_000;

  /**
   * The time without parking. Measured, 4 connections x depth 8 and 16 x 4: the longest wait for a
   * reply is 9 ms instead of 160, and 10 instead of 190, at the same rate.
   */
  private static final long YIELDING_NANOS = 5_000_000;

  private final BooleanSupplier crowded;
  private long began = System.nanoTime();
  private long parked = began;

  /**
   * Begins the first slice.
   *
   * @param crowded whether other connections may be waiting for a processor
   */
  public TimeSlice(BooleanSupplier crowded) {
    this.crowded = crowded;
  }

  /**
   * Lets others run; called after a batch of replies, where the thread holds nothing. A connection
   * that is alone keeps its processor: giving it up gained such a client nothing on a quiet
   * machine, and cost it a fifth of its requests on a busy one.
   */
  public void afterReplies() {
    if (isCrowded()) {
      ProcessorSharing.MACHINE.giveWay();
    }
    endAfter(REPLIES_NANOS);
  }

  /** Returns a socket's input; before each read, others may run. The thread holds nothing then. */
  public ReadableByteChannel input(SocketChannel channel) {
    return new ReadableByteChannel() {
      @Override
      public int read(ByteBuffer into) throws IOException {
        endAfter(READ_NANOS);
        return channel.read(into);
      }

      @Override
      public boolean isOpen() {
        return channel.isOpen();
      }

      @Override
      public void close() throws IOException {
        channel.close();
      }
    };
  }

  private void endAfter(long nanos) {
    if (Thread.currentThread().isVirtual() && System.nanoTime() - began > nanos) {
      if (isCrowded()) {
        giveCarrierUp();
      }
      began = System.nanoTime();
    }
  }

  /**
   * Lets the carrier run another thread. One that yields comes back to the carrier's own queue, and
   * two that yield to each other leave it no time for other queues; so a thread parks at times.
   */
  @SuppressWarnings("ThreadPriorityCheck") // a yield costs less than parking does
  private void giveCarrierUp() {
    long now = System.nanoTime();
    if (now - parked > YIELDING_NANOS) {
      parked = now;
      LockSupport.parkNanos(1);
    } else {
      Thread.yield();
    }
  }

  private boolean isCrowded() {
    return crowded.getAsBoolean();
  }
}
