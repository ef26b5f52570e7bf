package nbd.cache;

import java.util.concurrent.atomic.AtomicBoolean;

/**
 * The reading ahead for one client that reads sequentially: blocks are brought before it asks for
 * them, the more of them the longer it goes on, up to a bound. One such call is under way at a
 * time.
 *
 * <p>The fields that are not final are a hint, used by any of the client's threads without a lock:
 * a lost update costs at most a block that is read late or in vain.
 */
final class ReadAhead {
  private static final int ADVANCES_TO_BEGIN = 2;
  private static final int MOST_BYTES = 4 << 20;
  private static final int SLACK = 4;

  private final ExportCache cache;
  private final int mostBlocks;
  private final AtomicBoolean isUnderWay = new AtomicBoolean();
  private long newest = -2;
  private int advances;
  private long readUpTo;

  ReadAhead(ExportCache cache) {
    this.cache = cache;
    // A stream must not push out of the cache what it has brought itself.
    this.mostBlocks =
        Math.max(
            1,
            Math.min(MOST_BYTES / cache.grid.blockSize(), cache.frames.dirtyBackgroundLimit() / 2));
  }

  /** Takes note of a read of these blocks; reads of their neighbours may be in flight. */
  void sees(long first, long last) {
    if (last <= newest && first >= newest - SLACK) {
      return;
    }
    if (first >= newest - SLACK && first <= newest + 1) {
      advances++;
    } else {
      advances = 0;
      readUpTo = last;
    }
    newest = last;
    if (advances >= ADVANCES_TO_BEGIN) {
      begin(last);
    }
  }

  private void begin(long last) {
    int wanted = (int) Math.min(mostBlocks, 2L * advances);
    long from = Math.max(readUpTo, last) + 1;
    long to = Math.min(last + wanted, cache.grid.blockOf(cache.grid.size() - 1));
    // In large pieces: not one block more for each block that is read.
    boolean isWorth = from <= to && (from - last) * 2 <= wanted + 1;
    if (isWorth && isUnderWay.compareAndSet(false, true)) {
      readUpTo = to;
      Thread.ofVirtual()
          .name("read-ahead")
          .start(
              () -> {
                try {
                  cache.reading.loadAhead(from, to);
                } finally {
                  isUnderWay.set(false);
                }
              });
    }
  }
}
