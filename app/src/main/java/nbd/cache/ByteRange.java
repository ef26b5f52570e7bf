package nbd.cache;

import java.util.List;

/** A part of an export, in bytes. */
record ByteRange(long start, long end) {
  boolean isEmpty() {
    return start >= end;
  }

  /** The bytes that both have. */
  ByteRange and(ByteRange other) {
    return new ByteRange(Math.max(start, other.start), Math.min(end, other.end));
  }

  /** Adds this range to the end of a list, unless it is empty; adjacent ranges become one. */
  void appendTo(List<ByteRange> ranges) {
    if (isEmpty()) {
      return;
    }
    boolean goesOn = !ranges.isEmpty() && ranges.getLast().end == start;
    ranges.add(goesOn ? new ByteRange(ranges.removeLast().start, end) : this);
  }
}
