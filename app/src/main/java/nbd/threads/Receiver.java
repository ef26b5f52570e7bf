package nbd.threads;

import java.util.concurrent.atomic.AtomicReference;

/**
 * The right to receive a connection's requests, which one thread at a time has. A thread gives it
 * up to wait for storage, and another one is woken for it; but the first one may be back before. Or
 * the thread keeps it while it waits, and another one may take it over.
 *
 * <p>Invariant: while no thread has the right, one is being woken by the thread that gave it up;
 * never two. Threads that are woken to take over a right that is kept do not count.
 */
final class Receiver {
  private enum State {
    HELD,
    /** Held by a thread that was back before the woken one has begun. */
    TAKEN_BACK,
    /** Held by a thread that waits for storage. */
    KEPT,
    FREE
  }

  private final AtomicReference<State> state = new AtomicReference<>(State.FREE);

  /** Takes the right for the thread that was woken, or could not be; false if another has it. */
  boolean begin() {
    return state.getAndSet(State.HELD) == State.FREE;
  }

  /** Gives the right up; true if the caller has to wake a thread for it. */
  boolean giveUp() {
    return state.getAndSet(State.FREE) == State.HELD;
  }

  /** Takes the right if no thread has it. */
  boolean takeBack() {
    return state.compareAndSet(State.FREE, State.TAKEN_BACK);
  }

  /** Keeps the right while the caller waits; false if another thread is being woken for it. */
  boolean keep() {
    return state.compareAndSet(State.HELD, State.KEPT);
  }

  /** Says whether a thread keeps the right while it waits. */
  boolean isKept() {
    return state.get() == State.KEPT;
  }

  /** Takes the right from a thread that waits; false if it has come back, or another was first. */
  boolean takeOver() {
    return state.compareAndSet(State.KEPT, State.HELD);
  }

  /**
   * Called by a thread that kept the right when it has waited. Returns whether it has the right
   * now: not if another thread took it over and is receiving.
   */
  boolean endKeeping() {
    return takeOver() || takeBack();
  }
}
