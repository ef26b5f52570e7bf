package nbd.threads;

import java.util.concurrent.atomic.AtomicReference;

/**
 * The right to receive a connection's requests, which one thread at a time has. A thread gives it
 * up to wait for storage, and another one is woken for it; but the first one may be back before.
 *
 * <p>Invariant: while no thread has the right, one is being woken for it; never two.
 */
final class Receiver {
  private enum State {
    HELD,
    /** Held by a thread that was back before the woken one has begun. */
    TAKEN_BACK,
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
}
