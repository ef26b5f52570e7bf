package nbd.server;

import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The requests of one connection that other threads are working on: counted, so that the connection
 * reads no further when there are too many or when they hold too many bytes, and so that it can
 * wait for all of them at its end.
 *
 * <p>Invariant: {@code requests} and {@code bytes} are those that have entered and not left; both
 * are guarded by the lock. {@code requests} is at most {@link #MAXIMUM_REQUESTS}; {@code bytes} at
 * most {@link #MAXIMUM_BYTES}, or those of a single request.
 */
final class InFlight {
  /** More than any client keeps in flight at a slow backend; each costs a virtual thread. */
  static final int MAXIMUM_REQUESTS = 1024;

  /** Two of the largest requests. */
  static final long MAXIMUM_BYTES = 64L << 20;

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition left = lock.newCondition();
  private int requests;
  private long bytes;

  /** Lets a request with so many bytes of memory start, if that is possible at once. */
  boolean tryEnter(long requestBytes) {
    lock.lock();
    try {
      if (isFull(requestBytes)) {
        return false;
      }
      requests++;
      bytes += requestBytes;
      return true;
    } finally {
      lock.unlock();
    }
  }

  private boolean isFull(long requestBytes) {
    return requests > 0 && (requests >= MAXIMUM_REQUESTS || bytes + requestBytes > MAXIMUM_BYTES);
  }

  /** Waits until a request with so many bytes of memory may start. */
  void enter(long requestBytes) {
    lock.lock();
    try {
      while (isFull(requestBytes)) {
        left.awaitUninterruptibly();
      }
      requests++;
      bytes += requestBytes;
    } finally {
      lock.unlock();
    }
  }

  /** Ends a request that has entered with so many bytes. */
  void leave(long requestBytes) {
    lock.lock();
    try {
      requests--;
      bytes -= requestBytes;
      left.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /** Whether all have left. */
  boolean isEmpty() {
    lock.lock();
    try {
      return requests == 0;
    } finally {
      lock.unlock();
    }
  }

  /** Waits until all have left. */
  void awaitNone() {
    lock.lock();
    try {
      while (requests > 0) {
        left.awaitUninterruptibly();
      }
    } finally {
      lock.unlock();
    }
  }
}
