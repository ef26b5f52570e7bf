package nbd.cache;

/** A part of an export, in bytes. */
record ByteRange(long start, long end) {
  boolean isEmpty() {
    return start >= end;
  }

  /** What both have. */
  ByteRange and(ByteRange other) {
    return new ByteRange(Math.max(start, other.start), Math.min(end, other.end));
  }
}
