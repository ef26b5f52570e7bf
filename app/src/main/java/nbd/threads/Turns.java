package nbd.threads;

import java.io.IOException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.ReentrantLock;
import nbd.threads.BlockingCalls.Question;

/**
 * Lets callers with the same key act one after the other, so that they keep one thread waiting for
 * storage, and not one each. Virtual threads park while they wait.
 *
 * <p>Invariant: a key is in the table while somebody acts or waits for a turn with it.
 */
public final class Turns {
  private final ConcurrentHashMap<Object, Turn> turns = new ConcurrentHashMap<>();

  private static final class Turn {
    final ReentrantLock lock = new ReentrantLock();

    /** Who acts or waits; changed by the table's own updates only. */
    int callers;
  }

  /**
   * Acts when nobody else does with the key.
   *
   * @throws IOException what the action threw
   */
  public <T> T inTurn(Object key, Question<T> action) throws IOException {
    Turn turn =
        turns.compute(
            key,
            (same, known) -> {
              Turn wanted = known == null ? new Turn() : known;
              wanted.callers++;
              return wanted;
            });
    turn.lock.lock();
    try {
      return action.ask();
    } finally {
      turn.lock.unlock();
      turns.computeIfPresent(key, (same, known) -> --known.callers == 0 ? null : known);
    }
  }

  /** Whether nobody acts or waits. */
  boolean isEmpty() {
    return turns.isEmpty();
  }
}
