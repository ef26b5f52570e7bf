package nbd.filter;

import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.LongAdder;

/** The counts of one {@link StatisticsFilter}. Any thread may count and read. */
public final class Statistics {
  /** A number in the report, in the report's order. */
  public enum Count {
    /** Reads. */
    READ,
    /** Writes. */
    WRITE,
    /** Flushes. */
    FLUSH,
    /** Writes, trims and zeroes with the flag FUA. */
    FUA,
    /** Trims. */
    TRIM,
    /** Write zeroes. */
    ZERO,
    /** Cache hints. */
    CACHE,
    /** Questions for extents. */
    EXTENTS,
    /** Bytes that were read. */
    READ_BYTES,
    /** Bytes that were written. */
    WRITE_BYTES,
    /** Operations that failed. */
    ERROR,
    /** Handles that were opened. */
    OPEN;

    /** Returns the name in the report. */
    public String reportName() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  private final Map<Count, LongAdder> adders = new ConcurrentHashMap<>();

  private LongAdder adder(Count count) {
    return adders.computeIfAbsent(count, none -> new LongAdder());
  }

  void add(Count count, long more) {
    adder(count).add(more);
  }

  /** Begins anew. */
  public void forget() {
    adders.clear();
  }

  /** Returns the count so far. */
  public long get(Count count) {
    return adder(count).sum();
  }
}
