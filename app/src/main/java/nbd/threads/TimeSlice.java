package nbd.threads;

import java.util.function.BooleanSupplier;

/**
 * A connection's time slice on its carrier. Virtual threads are not preempted, and a connection
 * whose client is quick might never wait: so it gives way from time to time, its processor to other
 * threads of the machine and its carrier to other connections. Used by the connection's thread.
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

  private final BooleanSupplier crowded;
  private long began = System.nanoTime();

  /**
   * Begins the first slice.
   *
   * @param crowded whether others may be waiting for a carrier
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

  /** Lets other connections run; called before input is read, where the thread holds nothing. */
  void beforeRead() {
    endAfter(READ_NANOS);
  }

  @SuppressWarnings("ThreadPriorityCheck") // a virtual thread gives its carrier up in no other way
  private void endAfter(long nanos) {
    if (System.nanoTime() - began > nanos) {
      if (isCrowded()) {
        Thread.yield();
      }
      began = System.nanoTime();
    }
  }

  /** Says whether other connections may be waiting for a carrier. */
  boolean isCrowded() {
    return crowded.getAsBoolean();
  }
}
