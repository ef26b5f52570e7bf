package nbd.storage;

import java.util.List;

/**
 * A stretch of an export that is alike throughout.
 *
 * @param length in bytes, not 0
 * @param hole whether it takes no storage
 * @param zero whether it reads as zeroes
 */
public record Extent(long length, boolean hole, boolean zero) {
  /** Checks the length. */
  public Extent {
    if (length <= 0) {
      throw new IllegalArgumentException("extent of " + length + " bytes");
    }
  }

  /** Makes an extent that may hold any data: always a true answer. */
  public static Extent data(long length) {
    return new Extent(length, false, false);
  }

  /** Makes an extent that takes no storage, and reads as zeroes. */
  public static Extent hole(long length) {
    return new Extent(length, true, true);
  }

  /** Says whether the other extent is alike, whatever its length. */
  public boolean isLike(Extent other) {
    return hole == other.hole && zero == other.zero;
  }

  /** Adds this extent to the end of a list; two that are alike and adjacent become one. */
  public void appendTo(List<Extent> extents) {
    if (!extents.isEmpty() && extents.getLast().isLike(this)) {
      long both = extents.removeLast().length + length;
      extents.add(new Extent(both, hole, zero));
    } else {
      extents.add(this);
    }
  }
}
