package nbd.cache;

/** The moment at which clients' writes reach the storage. */
public enum CacheMode {
  /** At a flush at the latest; a flush writes back what anybody has written. */
  WRITEBACK,
  /** Before the write is answered. */
  WRITETHROUGH,
  /** In the background, and at a clean shutdown: a flush is answered without the storage. */
  UNSAFE
}
