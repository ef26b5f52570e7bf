package nbd.cli;

import java.io.IOException;
import java.util.Optional;
import java.util.function.UnaryOperator;
import nbd.cache.CacheFilter;
import nbd.cache.CacheSettings;
import nbd.cache.CacheStatistics;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.filter.StatisticsFilter;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.ThreadModel;

/**
 * The filters around the storage: the one place that decides their order, and how one of them
 * affects another. From the client inwards: statistics, FUA, multi-conn, cache, experiments, shared
 * connections and reconnection, statistics, storage.
 *
 * <ul>
 *   <li>FUA is above multi-conn: a flush that replaces FUA covers the whole group.
 *   <li>The cache is below multi-conn, to which it is storage that all connections share.
 *   <li>Experiments make the storage worse, for all other filters.
 *   <li>Connections to another server are shared, and made again, below every filter that takes a
 *       handle for a connection.
 *   <li>Requests are counted only if there is a report to write.
 * </ul>
 *
 * <p>The manual page (FLUSH AND FUA) has the table of what clients are offered, and what reaches
 * the storage; FilterTableTest checks it against this class.
 */
final class FilterStack {
  private final Optional<StatisticsReport> report;
  private final Backend backend;

  /**
   * The user's choice of filters.
   *
   * @param fua how FUA and flushes are handled
   * @param multiConn what is promised about several connections
   * @param cache the cache, if there is one
   * @param experiments adds the delay, error and private-cache filters
   * @param reconnection adds the sharing of connections to another server, or reconnecting
   * @param hasOwnNames whether each export name stands for content of its own; if not, all names
   *     stand for the same
   * @param report counts the requests, if somebody reads the counts
   */
  record Choice(
      FuaMode fua,
      MultiConnSettings multiConn,
      Optional<CacheSettings> cache,
      UnaryOperator<Backend> experiments,
      UnaryOperator<Backend> reconnection,
      boolean hasOwnNames,
      Optional<StatisticsReport> report) {}

  /** Puts the filters around the storage; closing the stack's backend closes it. */
  FilterStack(Backend storage, Choice choice) {
    report = choice.report();
    Backend counted =
        report.<Backend>map(to -> new StatisticsFilter(storage, to.backend())).orElse(storage);
    Backend worse = choice.experiments().apply(choice.reconnection().apply(counted));
    CacheStatistics counts =
        report.flatMap(StatisticsReport::cache).orElseGet(CacheStatistics::new);
    Backend cached =
        choice
            .cache()
            .<Backend>map(
                settings -> new CacheFilter(worse, settings, choice.hasOwnNames(), counts))
            .orElse(worse);
    Backend filtered = new FuaFilter(new MultiConnFilter(cached, promise(choice)), choice.fua());
    backend =
        report.<Backend>map(to -> new StatisticsFilter(filtered, to.client())).orElse(filtered);
  }

  /** Emulation works by flushes; where they are dropped, it is not promised. */
  private static MultiConnSettings promise(Choice choice) {
    boolean passive =
        choice.fua() == FuaMode.DISCARD && choice.multiConn().mode() == MultiConnMode.AUTO;
    return passive ? choice.multiConn().with(MultiConnMode.PLUGIN) : choice.multiConn();
  }

  Backend backend() {
    return backend;
  }

  /**
   * Limits the number of clients that are served at a time.
   *
   * @param wanted the user's limit; 0 for any number
   */
  int maxConnections(int wanted) {
    return backend.threadModel() == ThreadModel.SERIALIZE_CONNECTIONS ? 1 : wanted;
  }

  /**
   * Finds out whether every client of an export will be refused, so that a warning can say so
   * before one comes.
   *
   * @return the reason; empty if clients will be served
   * @throws IOException if the storage cannot be asked
   */
  Optional<String> refusal(String exportName, boolean readOnly) throws IOException {
    // An export that comes again under its name goes on with its counts.
    Optional<StatisticsReport> fresh = report.filter(counts -> !counts.hasCounted());
    try {
      backend.open(exportName, readOnly).close();
      return Optional.empty();
    } catch (NbdException refused) {
      return Optional.ofNullable(refused.getMessage());
    } finally {
      fresh.ifPresent(StatisticsReport::forget);
    }
  }
}
