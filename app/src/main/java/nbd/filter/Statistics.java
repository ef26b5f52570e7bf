package nbd.filter;

import java.util.EnumMap;
import java.util.Map;
import java.util.concurrent.atomic.LongAdder;

/** What went through one {@link StatisticsFilter}. Any thread may count and read. */
public final class Statistics {
  /** What is counted; the order is that of the report. */
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
    /** Calls that failed. */
    ERROR,
    /** Handles that were opened. */
    OPEN;

    /** The name in the report. */
    public String reportName() {
      return name().toLowerCase(java.util.Locale.ROOT);
    }
  }

  private final Map<Count, LongAdder> adders = new EnumMap<>(Count.class);

  /** All at zero. */
  public Statistics() {
    for (Count count : Count.values()) {
      adders.put(count, new LongAdder());
    }
  }

  LongAdder adder(Count count) {
    LongAdder adder = adders.get(count);
    if (adder == null) {
      throw new IllegalStateException(count.toString());
    }
    return adder;
  }

  /** Begins anew. */
  public void forget() {
    adders.values().forEach(LongAdder::reset);
  }

  /** The count so far. */
  public long get(Count count) {
    return adder(count).sum();
  }
}
