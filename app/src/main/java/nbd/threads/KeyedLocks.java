package nbd.threads;

import java.io.IOException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.ReentrantLock;
import nbd.threads.BlockingCalls.Question;

/**
 * Locks by key: callers with the same key act one after the other, so that they keep one thread
 * waiting for storage, and not one each. Virtual threads park while they wait.
 *
 * <p>Invariant: a key is in the table while a caller holds its lock or waits for it.
 */
public final class KeyedLocks {
  private final ConcurrentHashMap<Object, Lock> locks = new ConcurrentHashMap<>();

  private static final class Lock extends ReentrantLock {
    private static final long serialVersionUID = 1;

    /** The callers that hold it or wait; changed by the table's own updates only. */
    int callers;
  }

  /**
   * Acts with the key's lock held.
   *
   * @throws IOException if the action threw it
   */
  public <T> T withLock(Object key, Question<T> action) throws IOException {
    Lock lock =
        locks.compute(
            key,
            (same, known) -> {
              Lock wanted = known == null ? new Lock() : known;
              wanted.callers++;
              return wanted;
            });
    lock.lock();
    try {
      return action.ask();
    } finally {
      lock.unlock();
      locks.computeIfPresent(key, (same, known) -> --known.callers == 0 ? null : known);
    }
  }

  boolean isEmpty() {
    return locks.isEmpty();
  }
}
