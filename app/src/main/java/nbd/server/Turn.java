package nbd.server;

import java.util.function.BooleanSupplier;

/**
 * Makes a connection whose client is quick give its carrier up from time to time: virtual threads
 * are not preempted, and this one might never have to wait. Used by one thread.
 */
final class Turn {
  /**
   * Much longer, and the p99 latency of the others rises above other servers'; much shorter, and
   * moving threads between carriers costs a tenth of the throughput.
   */
  private static final long NANOS = 300_000;

  private final BooleanSupplier crowded;
  private long began = System.nanoTime();

  /**
   * Begins the first turn.
   *
   * @param crowded whether others may be waiting for a carrier
   */
  Turn(BooleanSupplier crowded) {
    this.crowded = crowded;
  }

  /** Lets others run if the turn is over; called where the thread holds nothing. */
  @SuppressWarnings("ThreadPriorityCheck") // a virtual thread gives its carrier up in no other way
  void check() {
    if (System.nanoTime() - began > NANOS) {
      if (crowded.getAsBoolean()) {
        Thread.yield();
      }
      began = System.nanoTime();
    }
  }
}
