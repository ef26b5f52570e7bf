package nbd.upstream;

import java.util.ArrayList;
import java.util.List;

/**
 * The ranges that are being written: writes that overlap come one after the other, so that they are
 * answered in the order in which the server makes them. Guarded by the session's lock.
 */
final class RangeLocks {
  private final List<Range> busy = new ArrayList<>();

  /** A range, from its first byte to the one after its last. */
  record Range(long start, long end) {
    long length() {
      return end - start;
    }

    private boolean overlaps(Range other) {
      return start < other.end && other.start < end;
    }
  }

  /** Takes a range; false if somebody writes in it. */
  boolean tryLock(Range range) {
    for (int i = 0; i < busy.size(); i++) {
      if (busy.get(i).overlaps(range)) {
        return false;
      }
    }
    busy.add(range);
    return true;
  }

  /** Gives a range back that was taken. */
  void unlock(Range range) {
    busy.remove(range);
  }
}
