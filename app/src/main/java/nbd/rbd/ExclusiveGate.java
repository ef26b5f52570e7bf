package nbd.rbd;

import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * A gate that operations pass, and that one which has to run alone closes until those that have
 * passed have ended.
 *
 * <p>Invariant, under the lock: while the gate is closed and {@link #close} has returned, nothing
 * runs but the operation that has closed it.
 */
final class ExclusiveGate {
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private int running;
  private boolean closed;

  /** Lets an operation pass, unless the gate is closed. */
  boolean tryEnter() {
    lock.lock();
    try {
      if (closed) {
        return false;
      }
      running++;
      return true;
    } finally {
      lock.unlock();
    }
  }

  /** Lets an operation pass, when the gate is open. */
  void enter() {
    lock.lock();
    try {
      awaitOpen();
      running++;
    } finally {
      lock.unlock();
    }
  }

  /** Notes the end of an operation that has passed. */
  void leave() {
    lock.lock();
    try {
      running--;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /** Closes the gate, and waits for the operations that have passed. */
  void close() {
    lock.lock();
    try {
      awaitOpen();
      closed = true;
      while (running > 0) {
        changed.awaitUninterruptibly();
      }
    } finally {
      lock.unlock();
    }
  }

  /** Opens it again. */
  void open() {
    lock.lock();
    try {
      closed = false;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private void awaitOpen() {
    while (closed) {
      changed.awaitUninterruptibly();
    }
  }
}
