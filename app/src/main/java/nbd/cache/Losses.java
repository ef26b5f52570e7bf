package nbd.cache;

import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import nbd.storage.LostWritesException;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * What an export's storage has lost that the cache cannot give it again: every client is told once,
 * by a failed flush, and one that comes later too if nobody has been. Any thread may call.
 */
final class Losses {
  private final ReentrantLock lock = new ReentrantLock();

  /** How many there were; changed under the lock. */
  private final AtomicLong count = new AtomicLong();

  /** The last one that anybody was told of. */
  private long toldToAny;

  private @Nullable String last;

  private long lastNumber;

  void add(String message) {
    lock.lock();
    try {
      count.incrementAndGet();
      last = message;
      lastNumber = LostWritesException.nextNumber();
    } finally {
      lock.unlock();
    }
    Logger.error("{}; every connection's next flush fails", message);
  }

  /** Up to which loss a client that comes now need not be told. */
  long toldToAny() {
    lock.lock();
    try {
      return toldToAny;
    } finally {
      lock.unlock();
    }
  }

  /** How many losses there were. */
  long count() {
    return count.get();
  }

  /** Tells a client of the last loss. */
  void tell() throws LostWritesException {
    lock.lock();
    try {
      toldToAny = count.get();
      throw new LostWritesException(String.valueOf(last), lastNumber);
    } finally {
      lock.unlock();
    }
  }

  /** The last loss, if nobody was told of it. */
  @Nullable String untold() {
    lock.lock();
    try {
      return toldToAny < count.get() ? last : null;
    } finally {
      lock.unlock();
    }
  }
}
