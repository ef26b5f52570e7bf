package nbd.server;

import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.LongAdder;
import nbd.protocol.BlockSizes;

/**
 * The memory of requests in flight, as all connections share it, so that clients that stall hold up
 * nobody but themselves.
 *
 * <ul>
 *   <li>Each connection has {@link #OWN_BYTES} that nobody else can take.
 *   <li>What a longer READ needs comes from a budget for replies; if that is used up, the data is
 *       sent piece by piece instead, and no READ waits for a client that does not take its replies.
 *   <li>What a longer WRITE needs comes from a budget for payloads: at once while less than half of
 *       it is in use, else piece by piece as the payload arrives, so that who announces much and
 *       sends little holds little. A WRITE is begun only when all of it is here, so when the budget
 *       is used up, those who have a part and need more would wait for each other; therefore there
 *       is one seat on which a WRITE gets whatever it still needs. The others wait for the seat, in
 *       order. Who has it and sends nothing for a while, while others wait, is cut.
 * </ul>
 *
 * <p>Invariant: the two budgets and what can be taken on the seat are together what the server was
 * given; all memory in use is at most that and {@link #OWN_BYTES} for each connection. Who waits
 * for the seat waits for storage or for a client that sends; who sits on it waits for nobody else.
 */
final class ServerMemory {
  /** A READ or two WRITEs of 256 KiB, as nbdcopy sends them; held only while it is used. */
  static final int OWN_BYTES = 512 << 10;

  /** Where memory is not plentiful, a long payload is received in pieces of this size. */
  static final int PIECE_BYTES = 1 << 20;

  /** The first of these pieces, for which the connection's own memory has room. */
  static final int FIRST_PIECE_BYTES = 256 << 10;

  /** What the longest WRITE may take on the seat: its pieces, of which the last is whole, too. */
  static final long SEAT_BYTES = BlockSizes.DEFAULT.maximumPayload() + (long) PIECE_BYTES;

  /** With less, the longest WRITE could never be received. */
  static final long MINIMUM_BYTES = SEAT_BYTES;

  private final MemoryBudget replies;
  private final MemoryBudget payloads;
  private final LongAdder outside = new LongAdder();
  private final BufferPool buffers;
  private final Semaphore seat = new Semaphore(1, true);
  private final long patienceNanos;
  private volatile Optional<Seat> seated = Optional.empty();

  /**
   * Bounds what is shared.
   *
   * @param bytes at least {@link #MINIMUM_BYTES}; half of what the seat leaves is for replies, half
   *     for payloads
   * @param patience how long who has the seat may send nothing while others wait for it
   */
  ServerMemory(long bytes, Duration patience) {
    if (bytes < MINIMUM_BYTES) {
      throw new IllegalArgumentException(bytes + " bytes for requests in flight are too few");
    }
    long budgets = bytes - SEAT_BYTES;
    this.replies = new MemoryBudget(budgets / 2);
    this.payloads = new MemoryBudget(budgets / 2);
    this.buffers = new BufferPool(bytes);
    this.patienceNanos = patience.toNanos();
  }

  BufferPool buffers() {
    return buffers;
  }

  MemoryBudget replies() {
    return replies;
  }

  MemoryBudget payloads() {
    return payloads;
  }

  /** Counts bytes that are in use outside the budgets; negative when they are given back. */
  void countOutside(long bytes) {
    outside.add(bytes);
  }

  /** The bytes that requests hold. */
  long taken() {
    return replies.taken() + payloads.taken() + outside.sum();
  }

  /**
   * Takes the seat, and waits for it.
   *
   * @param cut ends the connection of who takes it
   */
  Seat takeSeat(Runnable cut) {
    seat.acquireUninterruptibly();
    Seat taken = new Seat(cut);
    seated = Optional.of(taken);
    return taken;
  }

  private boolean isContested() {
    return seat.hasQueuedThreads();
  }

  /** Cuts who stalls on the seat while others wait; called from time to time. */
  void cutStalled() {
    if (isContested()) {
      seated.filter(Seat::stalls).ifPresent(stalled -> stalled.cut.run());
    }
  }

  /** The right to whatever memory one WRITE needs; used by the thread that receives it. */
  final class Seat {
    private final Runnable cut;
    private volatile boolean receiving = true;
    private volatile long moved = System.nanoTime();

    private Seat(Runnable cut) {
      this.cut = cut;
    }

    private boolean stalls() {
      return receiving && System.nanoTime() - moved > patienceNanos;
    }

    /** Some of the payload has arrived. */
    void moved() {
      moved = System.nanoTime();
    }

    /** All of it has arrived. */
    void received() {
      receiving = false;
    }

    /** Gives the seat to the next. */
    void leave() {
      seated = Optional.empty();
      seat.release();
    }
  }
}
