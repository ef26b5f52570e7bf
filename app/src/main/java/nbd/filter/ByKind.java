package nbd.filter;

import nbd.protocol.Command;

/**
 * An experiment's setting for each kind of operation.
 *
 * @param read for reads, read-aheads and questions for extents
 * @param write for writes, trims and zeroes
 * @param flush for flushes
 */
record ByKind<T>(T read, T write, T flush) {
  T of(Command command) {
    return switch (command) {
      case FLUSH -> flush;
      case WRITE, TRIM, WRITE_ZEROES -> write;
      default -> read;
    };
  }
}
