package nbd.transmission;

import java.util.Optional;
import java.util.Set;
import nbd.protocol.BaseAllocation;
import nbd.protocol.DirtyBitmap;
import nbd.storage.Extent;
import nbd.storage.Operation;

/** A metadata context that an export may have, in the order in which BLOCK_STATUS is answered. */
public enum MetaContext {
  /** Data, holes and zeroes: base:allocation, which every export has. */
  ALLOCATION(1),
  /** The dirty bitmap of the export's storage, in the form of qemu's. */
  DIRTY_BITMAP(2);

  private final int id;

  MetaContext(int id) {
    this.id = id;
  }

  /** Returns the number by which clients refer to the context. */
  public int id() {
    return id;
  }

  /** Returns the queries that list the context besides its name. */
  public Set<String> wildcards() {
    return switch (this) {
      case ALLOCATION -> Set.of(BaseAllocation.WILDCARD);
      case DIRTY_BITMAP -> Set.of(DirtyBitmap.NAMESPACE, DirtyBitmap.PREFIX);
    };
  }

  /**
   * Returns the context's name; empty if the export does not have the context.
   *
   * @param dirtyBitmap the name of the export's bitmap, if it has one
   */
  public Optional<String> name(Optional<String> dirtyBitmap) {
    return switch (this) {
      case ALLOCATION -> Optional.of(BaseAllocation.NAME);
      case DIRTY_BITMAP -> dirtyBitmap.map(DirtyBitmap.PREFIX::concat);
    };
  }

  /** Makes the question for the context. */
  Operation question(long offset, long length, int most) {
    return switch (this) {
      case ALLOCATION -> Operation.extents(offset, length, most);
      case DIRTY_BITMAP -> Operation.dirty(offset, length, most);
    };
  }

  /** Encodes the status of an extent that answers the question. */
  int status(Extent extent) {
    return switch (this) {
      case ALLOCATION -> BaseAllocation.status(extent.hole(), extent.zero());
      case DIRTY_BITMAP -> DirtyBitmap.status(extent.dirty());
    };
  }
}
