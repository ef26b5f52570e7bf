package nbd.file;

/**
 * How files are opened.
 *
 * @param readOnly not to be written; a file that cannot be is opened so anyway
 * @param lock whether other programs are told, and asked, by {@link ImageLock}
 * @param pattern how clients will read
 * @param cacheAdvice whether what was used stays in the page cache
 */
public record FileSettings(
    boolean readOnly, boolean lock, AccessPattern pattern, CacheAdvice cacheAdvice) {
  /** To be read and written, locked, with nothing said to the page cache. */
  public static final FileSettings DEFAULT =
      new FileSettings(false, true, AccessPattern.NORMAL, CacheAdvice.NORMAL);

  /** In which order clients will read. */
  public enum AccessPattern {
    /** Not known. */
    NORMAL,
    /** At random: reading ahead would be in vain. */
    RANDOM,
    /** From the first byte to the last. */
    SEQUENTIAL
  }

  /** How the page cache is used. */
  public enum CacheAdvice {
    /** It is the system's. */
    NORMAL,
    /** What was read or written is dropped, so that a copy leaves room for others' data. */
    NONE
  }

  /** The same, not to be written or to be. */
  public FileSettings readOnly(boolean only) {
    return new FileSettings(only, lock, pattern, cacheAdvice);
  }

  /** The same, without a lock. */
  public FileSettings withoutLock() {
    return new FileSettings(readOnly, false, pattern, cacheAdvice);
  }
}
