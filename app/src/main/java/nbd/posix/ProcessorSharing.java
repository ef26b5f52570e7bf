package nbd.posix;

import java.time.Duration;
import java.util.Optional;
import java.util.function.LongSupplier;

/**
 * Lets the machine's other threads run for a moment, those of clients above all: called after each
 * batch of replies, and before waiting for those of another server. See {@code sched_yield(2)}.
 *
 * <p>The reason is measured, where clients and server share two processors: a client that runs at
 * once sends its next requests while the carrier has others to serve, so that each batch holds more
 * of them, and a carrier that has given way is seldom stopped where others wait for it, in the
 * kernel's lock of a file for one. 4 KiB reads and writes, 4 connections x depth 8: 1.4 and 1.15
 * times the requests, 0.6 of the processor time, and a p99 latency of a third.
 *
 * <p>A neighbour that computes without end is another matter: it takes a slice of some milliseconds
 * each time. So a processor that came back late is not given up for a while, which bounds what is
 * lost to a hundredth of the time. Any thread may call; of racing updates one is lost, which costs
 * one such slice.
 */
public final class ProcessorSharing {
  /** The processors of this machine; does nothing where the system's calls are missing. */
  public static final ProcessorSharing MACHINE =
      new ProcessorSharing(ProcessorSharing::yieldProcessor, System::nanoTime);

  /** Clients that take requests and replies need less, a neighbour's slice is longer. */
  static final Duration LATE = Duration.ofMillis(1);

  /** The processor is kept so many times as long as it was away. */
  static final int KEPT = 100;

  private final Runnable giveUp;
  private final LongSupplier nanoTime;

  private volatile long keptUntil;

  /** For tests that say how the time goes by. */
  ProcessorSharing(Runnable giveUp, LongSupplier nanoTime) {
    this.giveUp = giveUp;
    this.nanoTime = nanoTime;
    this.keptUntil = nanoTime.getAsLong();
  }

  /**
   * Gives the processor up for a moment; called where the thread holds nothing. A virtual thread
   * keeps its carrier meanwhile.
   */
  public void giveWay() {
    long began = nanoTime.getAsLong();
    if (began - keptUntil < 0) {
      return;
    }
    giveUp.run();
    long away = nanoTime.getAsLong() - began;
    if (away > LATE.toNanos()) {
      keptUntil = began + away * KEPT;
    }
  }

  private static void yieldProcessor() {
    Optional<Calls> calls = Calls.LINKED;
    if (calls.isEmpty()) {
      return;
    }
    try {
      int result = (int) calls.get().schedYield.invokeExact();
      assert result == 0 : "it has no errors";
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }
}
