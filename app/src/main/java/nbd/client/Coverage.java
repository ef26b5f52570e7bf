package nbd.client;

import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * Which bytes of a read have come. Pieces that come in order cost nothing; what comes early is
 * remembered. Used by one thread.
 */
final class Coverage {
  /** Limit on out-of-order pieces; beyond it the server is treated as broken. */
  private static final int MOST_PIECES = 1 << 16;

  /** Everything before it has come. */
  private long reached;

  /** Pieces beyond, by their start, with their end; none touches another. */
  private @Nullable TreeMap<Long, Long> early;

  /**
   * Adds a piece.
   *
   * @return false if some of it has come before, or if there are too many pieces
   */
  boolean add(long start, long end) {
    if (start < reached) {
      return false;
    }
    if (start > reached) {
      return addEarly(start, end);
    }
    if (early == null) {
      reached = end;
      return true;
    }
    Map.Entry<Long, Long> next = early.firstEntry();
    if (next == null || end < next.getKey()) {
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

  /** Whether every byte before this one has come. */
  boolean isComplete(long length) {
    return reached == length;
  }
}
