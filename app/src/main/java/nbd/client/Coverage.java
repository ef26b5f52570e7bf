package nbd.client;

import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * The set of a READ's bytes that have arrived. Pieces that arrive in order cost no memory; early
 * ones are kept in a map. Used by one thread.
 */
final class Coverage {
  /** Limit on out-of-order pieces; beyond it the server is treated as broken. */
  private static final int MOST_PIECES = 1 << 16;

  /** All bytes before this one have arrived. */
  private long reached;

  /** The ends of pieces beyond {@code reached}, by their starts; no two of them touch. */
  private @Nullable TreeMap<Long, Long> early;

  /**
   * Adds a piece.
   *
   * @return false if part of it has arrived before, or if there are too many early pieces
   */
  boolean add(long start, long end) {
    if (start < reached) {
      return false;
    }
    if (start > reached) {
      return addEarly(start, end);
    }
    Map.Entry<Long, Long> next = early == null ? null : early.firstEntry();
    if (early == null || next == null || end < next.getKey()) {
      reached = end;
      return true;
    }
    if (end > next.getKey()) {
      return false;
    }
    reached = next.getValue();
    early.remove(next.getKey());
    return true;
  }

  private boolean addEarly(long start, long end) {
    if (early == null) {
      early = new TreeMap<>();
    }
    Map.Entry<Long, Long> before = early.floorEntry(start);
    Map.Entry<Long, Long> after = early.ceilingEntry(start);
    if ((before != null && before.getValue() > start) || (after != null && after.getKey() < end)) {
      return false;
    }
    long from = start;
    long to = end;
    if (before != null && before.getValue() == start) {
      from = before.getKey();
    }
    if (after != null && after.getKey() == end) {
      to = after.getValue();
      early.remove(end);
    }
    early.put(from, to);
    return early.size() <= MOST_PIECES;
  }

  /** Says whether nothing has arrived. */
  boolean isEmpty() {
    return reached == 0 && (early == null || early.isEmpty());
  }

  /** Says whether the first {@code length} bytes have arrived. */
  boolean isComplete(long length) {
    return reached == length;
  }
}
