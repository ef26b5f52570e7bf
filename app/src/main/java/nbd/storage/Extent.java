package nbd.storage;

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

  /** Of which nothing is known: what can always be said. */
  public static Extent data(long length) {
    return new Extent(length, false, false);
  }

  /** Not there, and reads as zeroes. */
  public static Extent hole(long length) {
    return new Extent(length, true, true);
  }

  /** Whether the other is alike, whatever its length. */
  public boolean isLike(Extent other) {
    return hole == other.hole && zero == other.zero;
  }
}
