package nbd.filter;

import nbd.storage.Backend;
import nbd.storage.Handle;

/**
 * Storage made to cache for each connection, for experiments: a connection's cache holds its reads
 * and writes until its own flush, so multi-conn has to be emulated.
 */
public final class ConnectionCacheFilter extends FilterBackend {
  /** The default of the bytes that a connection caches. */
  public static final long DEFAULT_CAPACITY = 64L << 20;

  private final long capacity;

  /**
   * Wraps a backend.
   *
   * @param capacity the largest number of bytes that a connection caches
   */
  public ConnectionCacheFilter(Backend next, long capacity) {
    super(next);
    this.capacity = capacity;
  }

  @Override
  protected Handle wrap(Handle handle, String exportName) {
    return new ConnectionCacheHandle(handle, capacity);
  }
}
