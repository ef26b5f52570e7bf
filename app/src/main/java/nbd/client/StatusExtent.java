package nbd.client;

import nbd.protocol.BaseAllocation;
import nbd.storage.Extent;

/**
 * A stretch of an export that is alike throughout in one metadata context.
 *
 * @param length in bytes, not 0
 * @param status the context's flags as the server sent them; unsigned
 */
public record StatusExtent(long length, long status) {
  /** Reads the status as one of base:allocation. */
  Extent allocation() {
    return new Extent(length, BaseAllocation.isHole(status), BaseAllocation.isZero(status));
  }
}
