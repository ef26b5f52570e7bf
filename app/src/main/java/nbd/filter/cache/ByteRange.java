package nbd.filter.cache;

/** A part of an export, in bytes. */
record ByteRange(long start, long end) {}
