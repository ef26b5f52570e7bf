package nbd.cli;

import java.io.IOException;
import java.util.Optional;
import java.util.function.UnaryOperator;
import nbd.cache.CacheFilter;
import nbd.cache.CacheSettings;
import nbd.cache.CacheStatistics;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.filter.Statistics;
import nbd.filter.StatisticsFilter;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.ThreadModel;

/**
 * The filters around the storage: the one place for their order, and for what one of them being
 * there means to another. From the client inwards: statistics, FUA, multi-conn, cache, experiments,
 * shared connections and reconnection, statistics, storage.
 *
 * <ul>
 *   <li>FUA is above multi-conn: the flush that it may make of one is the group's.
 *   <li>The cache is below multi-conn, which so finds in it storage that all connections share.
 *   <li>Experiments make the storage worse, and stand where the storage does for all others.
 *   <li>Sharing connections to another server, and making them again, is below all that takes its
 *       handles for connections.
 * </ul>
 *
 * <p>What clients are told, and what reaches the storage, is the table in the manual page (FLUSH
 * AND FUA), which FilterTableTest checks against this class.
 */
final class FilterStack {
  private final Statistics clientSide = new Statistics();
  private final Statistics backendSide = new Statistics();
  private final Optional<CacheStatistics> cacheCounts;
  private final Backend backend;

  /**
   * What the user chose for the filters.
   *
   * @param fua how FUA and flushes are handled
   * @param multiConn what is promised about several connections
   * @param cache the cache, if there is to be one
   * @param experiments adds the delay, error and private-cache filters
   * @param reconnection adds the sharing of connections to another server, or reconnecting
   * @param hasOwnNames whether each export name stands for content of its own; if not, all names
   *     stand for the same
   */
  record Choice(
      FuaMode fua,
      MultiConnSettings multiConn,
      Optional<CacheSettings> cache,
      UnaryOperator<Backend> experiments,
      UnaryOperator<Backend> reconnection,
      boolean hasOwnNames) {}

  /** Puts the filters around the storage; closing the stack's backend closes it. */
  FilterStack(Backend storage, Choice choice) {
    Backend counted = new StatisticsFilter(storage, backendSide);
    Backend worse = choice.experiments().apply(choice.reconnection().apply(counted));
    cacheCounts = choice.cache().map(settings -> new CacheStatistics());
    Backend cached =
        choice
            .cache()
            .<Backend>map(
                settings ->
                    new CacheFilter(
                        worse, settings, choice.hasOwnNames(), cacheCounts.orElseThrow()))
            .orElse(worse);
    Backend multiConn = new MultiConnFilter(cached, promise(choice));
    backend = new StatisticsFilter(new FuaFilter(multiConn, choice.fua()), clientSide);
  }

  /** Emulation works by flushes; where none arrives, it must not be promised. */
  private static MultiConnSettings promise(Choice choice) {
    boolean passive =
        choice.fua() == FuaMode.DISCARD && choice.multiConn().mode() == MultiConnMode.AUTO;
    return passive ? choice.multiConn().with(MultiConnMode.PLUGIN) : choice.multiConn();
  }

  /** What is to be served. */
  Backend backend() {
    return backend;
  }

  /**
   * How many clients can be served at a time.
   *
   * @param wanted how many the user allows; 0 for any number
   */
  int maxConnections(int wanted) {
    return backend.threadModel() == ThreadModel.SERIALIZE_CONNECTIONS ? 1 : wanted;
  }

  /**
   * Why every client of an export will be refused, so that it can be said before one comes.
   *
   * @return empty if they will not be
   * @throws IOException if the storage cannot be asked
   */
  Optional<String> refusal(String exportName, boolean readOnly) throws IOException {
    try {
      backend.open(exportName, readOnly).close();
      return Optional.empty();
    } catch (NbdException refused) {
      return Optional.ofNullable(refused.getMessage());
    } finally {
      clientSide.forget();
      backendSide.forget();
    }
  }

  /** Counts before all filters. */
  Statistics clientSide() {
    return clientSide;
  }

  /** What the cache did, if there is one. */
  Optional<CacheStatistics> cacheCounts() {
    return cacheCounts;
  }

  /** Counts before the storage. */
  Statistics backendSide() {
    return backendSide;
  }
}
