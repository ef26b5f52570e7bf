package nbd.transmission;

import java.util.function.BooleanSupplier;
import nbd.posix.ProcessorSharing;

/**
 * Makes a connection whose client is quick give way from time to time: its processor to other
 * threads of the machine, and its carrier to other connections, since virtual threads are not
 * preempted, and this one might never have to wait. Used by one thread.
 */
public final class Turn {
  /**
   * A longer slice raises other connections' p99. Moving threads between carriers costs little
   * after the processor was given up, since many requests have arrived then.
   */
  private static final long NANOS = 30_000;

  private final BooleanSupplier crowded;
  private long began = System.nanoTime();

  /**
   * Begins the first turn.
   *
   * @param crowded whether others may be waiting for a carrier
   */
  public Turn(BooleanSupplier crowded) {
    this.crowded = crowded;
  }

  /** Lets others run; called after a batch of replies, where the thread holds nothing. */
  @SuppressWarnings("ThreadPriorityCheck") // a virtual thread gives its carrier up in no other way
  void check() {
    ProcessorSharing.MACHINE.giveWay();
    if (System.nanoTime() - began > NANOS) {
      if (crowded.getAsBoolean()) {
        Thread.yield();
      }
      began = System.nanoTime();
    }
  }
}
