package nbd.cache;

import java.util.concurrent.atomic.LongAdder;

/** What a cache did, for all exports together. Any thread may count and read. */
public final class CacheStatistics {
  final LongAdder hits = new LongAdder();
  final LongAdder misses = new LongAdder();
  final LongAdder writeBacks = new LongAdder();
  final LongAdder dirtyBytes = new LongAdder();

  /** Reads that were served without the storage. */
  public long hits() {
    return hits.sum();
  }

  /** Reads that had to wait for the storage. */
  public long misses() {
    return misses.sum();
  }

  /** Writes to the storage by which it wrote back what clients had written before. */
  public long writeBacks() {
    return writeBacks.sum();
  }

  /** How many bytes have yet to be written back, now. */
  public long dirtyBytes() {
    return dirtyBytes.sum();
  }
}
