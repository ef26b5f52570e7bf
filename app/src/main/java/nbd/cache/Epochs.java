package nbd.cache;

import java.util.concurrent.atomic.AtomicLong;

/**
 * The time of an export's cache, in epochs, of which one begins with each flush. A block remembers
 * the epoch in which it became dirty, so that a flush finds what was written before it and leaves
 * the rest; and the one in which it was given to the storage, so that a flush of the storage covers
 * what was there when it started. Any thread may call.
 */
final class Epochs {
  private final AtomicLong now = new AtomicLong(1);
  private final AtomicLong lastChanged = new AtomicLong(-1);
  private final AtomicLong lastUncachedWrite = new AtomicLong(-1);
  private final AtomicLong coveredUpTo = new AtomicLong();

  /** Returns the present epoch. */
  long now() {
    return now.get();
  }

  /** Begins an epoch: what is marked from now on is not older than the answer. */
  long begin() {
    return now.incrementAndGet();
  }

  /**
   * Notes that the storage was changed, or may have been.
   *
   * @param isRepeatable whether the cache can write it again, or nobody ever has to
   */
  void changed(boolean isRepeatable) {
    long epoch = now.get();
    raise(lastChanged, epoch);
    if (!isRepeatable) {
      raise(lastUncachedWrite, epoch);
    }
  }

  /** Notes that what was written in an epoch cannot be resent from memory. */
  void uncached(long epoch) {
    raise(lastUncachedWrite, epoch);
  }

  /** Notes that a flush of the storage has succeeded, which began with this epoch. */
  void flushed(long before) {
    raise(coveredUpTo, before);
  }

  private static void raise(AtomicLong value, long to) {
    value.accumulateAndGet(to, Math::max);
  }

  /** Says whether a flush of the storage has covered what it was given in an epoch. */
  boolean isCovered(long epoch) {
    return epoch < coveredUpTo.get();
  }

  /** Says whether a flush of the storage has covered all that it was given. */
  boolean isAllCovered() {
    return isCovered(lastChanged.get());
  }

  /** Says whether the cache can write again all that no flush of the storage has covered. */
  boolean isAllRepeatable() {
    return isCovered(lastUncachedWrite.get());
  }

  /** Notes that the loss of what cannot be resent was reported. */
  void reported() {
    lastUncachedWrite.set(-1);
  }
}
