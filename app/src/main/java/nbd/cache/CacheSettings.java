package nbd.cache;

/**
 * The settings of a cache.
 *
 * @param mode when the storage gets what clients write
 * @param size the bytes of data that it holds at most, for all exports together; at least {@link
 *     #MINIMUM_BLOCKS} blocks
 * @param blockSize in bytes: a power of 2 from {@link #MINIMUM_BLOCK_SIZE} to {@link
 *     #MAXIMUM_BLOCK_SIZE}; what is read is read in these, what is written in sectors
 */
public record CacheSettings(CacheMode mode, long size, int blockSize) {
  /** The default size. */
  public static final long DEFAULT_SIZE = 256L << 20;

  /** The default block size. */
  public static final int DEFAULT_BLOCK_SIZE = 64 << 10;

  /** The smallest block size. */
  public static final int MINIMUM_BLOCK_SIZE = 4 << 10;

  /** The largest block size. */
  public static final int MAXIMUM_BLOCK_SIZE = 4 << 20;

  /** The fewest blocks that make a cache. */
  public static final int MINIMUM_BLOCKS = 4;

  /**
   * Checks the bounds.
   *
   * @throws IllegalArgumentException if one is not kept; the message is for the user
   */
  public CacheSettings {
    if (Integer.bitCount(blockSize) != 1
        || blockSize < MINIMUM_BLOCK_SIZE
        || blockSize > MAXIMUM_BLOCK_SIZE) {
      throw new IllegalArgumentException(
          "a cache block of %d bytes; it has to be a power of 2 from %d to %d"
              .formatted(blockSize, MINIMUM_BLOCK_SIZE, MAXIMUM_BLOCK_SIZE));
    }
    if (size < (long) blockSize * MINIMUM_BLOCKS) {
      throw new IllegalArgumentException(
          "a cache of %d bytes; it has to hold %d blocks of %d bytes at least"
              .formatted(size, MINIMUM_BLOCKS, blockSize));
    }
    if (size / blockSize > Integer.MAX_VALUE >> 4) {
      throw new IllegalArgumentException(
          "a cache of %d bytes has too many blocks of %d bytes; make the blocks larger"
              .formatted(size, blockSize));
    }
  }

  /** Makes the settings of a cache of the default size. */
  public static CacheSettings of(CacheMode mode) {
    return new CacheSettings(mode, DEFAULT_SIZE, DEFAULT_BLOCK_SIZE);
  }

  /** Returns the number of blocks that it holds. */
  int blocks() {
    return (int) (size / blockSize);
  }
}
