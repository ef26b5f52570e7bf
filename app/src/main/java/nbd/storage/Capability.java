package nbd.storage;

/** What a handle can do besides reading. A call whose capability is missing is never made. */
public enum Capability {
  /** {@link Handle#write}. */
  WRITE,
  /** {@link Handle#flush}. */
  FLUSH,
  /** {@link Handle#trim}. */
  TRIM,
  /** {@link Handle#zero}. */
  ZERO,
  /** {@link Handle#zero} knows the flag FAST_ZERO. */
  FAST_ZERO,
  /** {@link Handle#cache}. */
  CACHE,
  /** {@link Handle#extents} knows more than that there may be data everywhere. */
  EXTENTS,
  /**
   * A flush of one handle covers all handles of the same export name, and a read on any of them
   * then sees what was written on any other.
   */
  MULTI_CONN,
  /** Sequential access pays. */
  ROTATIONAL
}
