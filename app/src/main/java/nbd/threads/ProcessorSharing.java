package nbd.threads;

import java.time.Duration;
import java.util.function.LongSupplier;
import nbd.posix.Processor;

/**
 * The sharing of processors with the machine's other threads, those of clients above all: they run
 * for a moment after each batch of replies, and before replies of another server are awaited.
 *
 * <p>Measured where clients and server share two processors: a client that runs at once sends its
 * next requests while the carrier serves others, so that each batch holds more of them; and a
 * carrier that has given way is seldom stopped where others wait for it, in the kernel's lock of a
 * file for example. 4 KiB reads and writes, 4 connections x depth 8: 1.3 and 1.1 times the
 * requests, and half of the p99 latency. It gains nothing beside computing neighbours, and nothing
 * where clients have processors of their own; jmh/README.md has the figures.
 *
 * <p>A neighbour that computes without end takes a slice of some milliseconds each time. So after a
 * processor came back late, it is kept for a while, which bounds the loss to a hundredth of the
 * time. Any thread may call; of racing updates one is lost, which costs one such slice.
 */
public final class ProcessorSharing {
  /** The processors of this machine. */
  public static final ProcessorSharing MACHINE =
      new ProcessorSharing(Processor::giveUp, System::nanoTime);

  /** Longer than a client takes for requests and replies, shorter than a neighbour's slice. */
  static final Duration LATE = Duration.ofMillis(1);

  /** The processor is kept so many times as long as it was away. */
  static final int KEPT = 100;

  private final Runnable giveUp;
  private final LongSupplier nanoTime;

  private volatile long keptUntil;

  /** Shares with a clock and processors of a test's own. */
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
}
