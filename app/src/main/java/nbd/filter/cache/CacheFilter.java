package nbd.filter.cache;

import java.io.IOException;
import nbd.backend.Backend;
import nbd.backend.Handle;
import nbd.filter.FilterBackend;

/** One cache for all connections of an export, in front of any backend. */
public final class CacheFilter extends FilterBackend {
  private final CacheSettings settings;
  private final CacheStatistics statistics;
  private final boolean hasOwnNames;

  /**
   * Wraps a backend.
   *
   * @param hasOwnNames whether each export name stands for content of its own; if not, all names
   *     share one cache
   */
  public CacheFilter(
      Backend next, CacheSettings settings, boolean hasOwnNames, CacheStatistics statistics) {
    super(next);
    this.settings = settings;
    this.hasOwnNames = hasOwnNames;
    this.statistics = statistics;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return next.open(exportName, readOnly);
  }

  @Override
  public String toString() {
    return "%s %s %s".formatted(settings, hasOwnNames, statistics);
  }
}
