package nbd.cli;

/** The values of {@code --cache}. */
enum CacheChoice {
  /** No cache. */
  NONE,
  /** {@link nbd.cache.CacheMode#WRITEBACK}. */
  WRITEBACK,
  /** {@link nbd.cache.CacheMode#WRITETHROUGH}. */
  WRITETHROUGH,
  /** {@link nbd.cache.CacheMode#UNSAFE}. */
  UNSAFE
}
