package nbd.filter;

import java.io.IOException;
import nbd.storage.Backend;
import nbd.storage.Handle;

/**
 * Gives each connection a cache of its own, for what it reads and for what it writes, until its own
 * flush: storage of the kind for which multi-conn has to be emulated. For experiments.
 */
public final class ConnectionCacheFilter extends FilterBackend {
  /** What a connection caches at most, in bytes, where nothing else is said. */
  public static final long DEFAULT_CAPACITY = 64L << 20;

  private final long capacity;

  /**
   * Wraps a backend.
   *
   * @param capacity how many bytes a connection caches at most; one that caches more forgets what
   *     it has read, and if that is not enough, writes back what it has written
   */
  public ConnectionCacheFilter(Backend next, long capacity) {
    super(next);
    this.capacity = capacity;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return new ConnectionCacheHandle(next.open(exportName, readOnly), capacity);
  }
}
