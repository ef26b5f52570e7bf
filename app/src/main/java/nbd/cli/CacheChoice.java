package nbd.cli;

/** The values of {@code --cache}. */
enum CacheChoice {
  /** No cache. */
  NONE,
  /** {@link nbd.filter.cache.CacheMode#WRITEBACK}. */
  WRITEBACK,
  /** {@link nbd.filter.cache.CacheMode#WRITETHROUGH}. */
  WRITETHROUGH,
  /** {@link nbd.filter.cache.CacheMode#UNSAFE}. */
  UNSAFE
}
