package nbd.cache;

import java.util.ArrayList;
import java.util.List;

/**
 * The changes of a few numbers, with the times at which they began and ended. From these follow the
 * values that a number may have: any but one that was replaced by a change which began after it had
 * ended. Any thread may call.
 */
final class History {
  private int clock;
  private final List<Change> changes = new ArrayList<>();
  private final List<Read> reads = new ArrayList<>();

  private record Read(int number, int value, int begin, int end) {}

  private static final class Change {
    final int number;
    final int value;
    final int begin;
    int end = Integer.MAX_VALUE;

    Change(int number, int value, int begin) {
      this.number = number;
      this.value = value;
      this.begin = begin;
    }
  }

  /** Begins with all numbers 0. */
  History(int numbers) {
    end(begin(0, numbers, 0));
  }

  /** Begins to change consecutive numbers, and returns the argument of {@link #end}. */
  synchronized int[] begin(int first, int count, int value) {
    int[] begun = new int[count];
    clock++;
    for (int i = 0; i < count; i++) {
      begun[i] = changes.size();
      changes.add(new Change(first + i, value, clock));
    }
    return begun;
  }

  /** Ends changes, and returns the time. */
  synchronized int end(int[] begun) {
    clock++;
    for (int change : begun) {
      changes.get(change).end = clock;
    }
    return clock;
  }

  /** Returns a time after everything so far. */
  synchronized int now() {
    return ++clock;
  }

  /** Says whether a number may have a value, given all changes that ended before a time. */
  synchronized boolean mayBe(int number, int value, int before) {
    for (Change change : changes) {
      if (change.number == number && change.value == value && !wasReplaced(change, before)) {
        return true;
      }
    }
    return false;
  }

  /**
   * Notes that a client read a value between two times, of a number that is never changed to the
   * same value twice.
   *
   * @return false if another value was read between two reads of this one
   */
  synchronized boolean maySee(int number, int value, int begin, int end) {
    reads.add(new Read(number, value, begin, end));
    int firstEnd = end;
    for (Read read : reads) {
      if (read.number == number && read.value == value) {
        firstEnd = Math.min(firstEnd, read.end);
      }
    }
    for (Read read : reads) {
      if (read.number == number
          && read.value != value
          && firstEnd < read.begin
          && read.end < begin) {
        return false;
      }
    }
    return true;
  }

  private boolean wasReplaced(Change change, int before) {
    for (Change later : changes) {
      if (later.number == change.number && later.begin > change.end && later.end < before) {
        return true;
      }
    }
    return false;
  }
}
