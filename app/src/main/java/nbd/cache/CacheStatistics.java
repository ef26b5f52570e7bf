package nbd.cache;

import java.util.concurrent.atomic.LongAdder;

/** The counts of a cache, for all exports together. Any thread may count and read. */
public final class CacheStatistics {
  final LongAdder hits = new LongAdder();
  final LongAdder misses = new LongAdder();
  final LongAdder writeBacks = new LongAdder();
  final LongAdder dirtyBytes = new LongAdder();

  /** Returns the number of reads that were served without the storage. */
  public long hits() {
    return hits.sum();
  }

  /** Returns the number of reads that had to wait for the storage. */
  public long misses() {
    return misses.sum();
  }

  /** Returns the number of writes to the storage by which it wrote back. */
  public long writeBacks() {
    return writeBacks.sum();
  }

  /** Returns the bytes that have yet to be written back, now. */
  public long dirtyBytes() {
    return dirtyBytes.sum();
  }
}
