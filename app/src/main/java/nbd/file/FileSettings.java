package nbd.file;

/**
 * The way files are opened.
 *
 * @param readOnly whether they are never written; a file that cannot be written never is
 * @param lock whether {@link ImageLock} keeps other programs off
 * @param pattern the order in which clients will read
 * @param cacheAdvice whether data stays in the page cache after its use
 */
public record FileSettings(
    boolean readOnly, boolean lock, AccessPattern pattern, CacheAdvice cacheAdvice) {
  /** Read and written, locked, without advice to the page cache. */
  public static final FileSettings DEFAULT =
      new FileSettings(false, true, AccessPattern.NORMAL, CacheAdvice.NORMAL);

  /** The order in which clients will read. */
  public enum AccessPattern {
    /** Unknown. */
    NORMAL,
    /** Random: reading ahead would be in vain. */
    RANDOM,
    /** From the first byte to the last. */
    SEQUENTIAL
  }

  /** The use of the page cache. */
  public enum CacheAdvice {
    /** The system decides. */
    NORMAL,
    /** Data is dropped after its use, so that a copy leaves room for others' data. */
    NONE
  }

  /** The same, with the other way of writing. */
  public FileSettings readOnly(boolean only) {
    return new FileSettings(only, lock, pattern, cacheAdvice);
  }

  /** The same, without a lock. */
  public FileSettings withoutLock() {
    return new FileSettings(readOnly, false, pattern, cacheAdvice);
  }
}
