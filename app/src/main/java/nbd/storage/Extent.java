package nbd.storage;

import java.util.List;

/**
 * A stretch of an export that is alike throughout. It answers {@link Operation#extents}, and then
 * is not dirty; or {@link Operation#dirty}, and then is neither hole nor zero.
 *
 * @param length in bytes, not 0
 * @param hole whether it takes no storage
 * @param zero whether it reads as zeroes
 * @param dirty whether it may have changed, as the dirty bitmap says
 */
public record Extent(long length, boolean hole, boolean zero, boolean dirty) {
  /** Checks the length. */
  public Extent {
    if (length <= 0) {
      throw new IllegalArgumentException("extent of " + length + " bytes");
    }
  }

  /** Makes an extent that is data, a hole or zero. */
  public Extent(long length, boolean hole, boolean zero) {
    this(length, hole, zero, false);
  }

  /** Makes an extent that may have changed: always a true answer to the question for that. */
  public static Extent dirty(long length) {
    return new Extent(length, false, false, true);
  }

  /** Makes an extent that has certainly not changed. */
  public static Extent clean(long length) {
    return new Extent(length, false, false, false);
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
    return hole == other.hole && zero == other.zero && dirty == other.dirty;
  }

  /** Adds this extent to the end of a list; two that are alike and adjacent become one. */
  public void appendTo(List<Extent> extents) {
    if (!extents.isEmpty() && extents.getLast().isLike(this)) {
      long both = extents.removeLast().length + length;
      extents.add(new Extent(both, hole, zero, dirty));
    } else {
      extents.add(this);
    }
  }
}
