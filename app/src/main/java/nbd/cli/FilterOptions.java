package nbd.cli;

import java.util.List;
import java.util.Optional;
import java.util.function.Predicate;
import nbd.cache.CacheMode;
import nbd.cache.CacheSettings;
import nbd.filter.FuaMode;
import nbd.multiconn.MultiConnMode;
import nbd.storage.ThreadModel;
import org.tinylog.Logger;
import picocli.CommandLine.Option;

/** The options of serve for FUA and the cache. */
final class FilterOptions {
  private static final String FUA = "--fua";
  private static final String CACHE = "--cache";
  static final String CACHE_SIZE = "--cache-size";
  private static final String CACHE_BLOCK_SIZE = "--cache-block-size";

  @Option(
      names = FUA,
      paramLabel = "MODE",
      defaultValue = "pass",
      description =
          "How FUA writes and flushes are handled: one of ${COMPLETION-CANDIDATES} (default:"
              + " ${DEFAULT-VALUE}, FUA as the storage has it, else a write and a flush); see FLUSH"
              + " AND FUA in the manual page.")
  private FuaMode fua = FuaMode.PASS;

  @Option(
      names = CACHE,
      paramLabel = "MODE",
      defaultValue = "none",
      description =
          "Put one cache for all connections in front of the storage (default: ${DEFAULT-VALUE}):"
              + " one of ${COMPLETION-CANDIDATES}; see CACHE in the manual page.")
  private Cache cache = Cache.NONE;

  @Option(
      names = CACHE_SIZE,
      paramLabel = "SIZE",
      defaultValue = "256M",
      description =
          "With --cache: memory for cached data, for all exports of one BACKEND together"
              + " (default: ${DEFAULT-VALUE}).")
  private long cacheSize = CacheSettings.DEFAULT_SIZE;

  @Option(
      names = CACHE_BLOCK_SIZE,
      paramLabel = "SIZE",
      defaultValue = "64K",
      description =
          "With --cache: read and keep blocks of this size, a power of 2"
              + " (default: ${DEFAULT-VALUE}).")
  private long cacheBlockSize = CacheSettings.DEFAULT_BLOCK_SIZE;

  /** {@link CacheMode}, and no cache. */
  private enum Cache {
    NONE,
    WRITEBACK,
    WRITETHROUGH,
    UNSAFE
  }

  /**
   * Checks the options.
   *
   * @param model the thread model that the user asked for
   * @param namesDiffer whether each export name stands for content of its own
   * @param isGiven whether the user gave an option
   * @throws UsageException if they are wrong
   */
  void check(
      MultiConnMode multiConn, ThreadModel model, boolean namesDiffer, Predicate<String> isGiven) {
    UsageException.refuseIf(
        fua == FuaMode.DISCARD && multiConn == MultiConnMode.EMULATE,
        FUA + "=discard: not with --multi-conn-mode=emulate, which works by flushes");
    if (cache == Cache.NONE) {
      UsageException.refuse(List.of(CACHE_SIZE, CACHE_BLOCK_SIZE), isGiven, "only with " + CACHE);
    }
    UsageException.refuseIf(
        cache != Cache.NONE && model == ThreadModel.SERIALIZE_CONNECTIONS && namesDiffer,
        CACHE
            + ": not with --thread-model=serialize-connections and several exports, since it keeps"
            + " a connection of its own to each of them");
    try {
      cache();
    } catch (IllegalArgumentException wrong) {
      throw new UsageException(CACHE + ": " + wrong.getMessage());
    }
  }

  /** Warns of an option that loses data. */
  void warn() {
    if (fua == FuaMode.DISCARD) {
      Logger.warn(
          "{}=discard: flushes and FUA are dropped, so what clients take for durable may be lost",
          FUA);
    }
  }

  FuaMode fua() {
    return fua;
  }

  /** Makes the settings of the cache, if there is one. */
  Optional<CacheSettings> cache() {
    if (cache == Cache.NONE) {
      return Optional.empty();
    }
    int blockSize = (int) Math.min(cacheBlockSize, Integer.MAX_VALUE);
    return Optional.of(new CacheSettings(CacheMode.valueOf(cache.name()), cacheSize, blockSize));
  }

  /** The memory that the cache takes, in bytes; 0 if there is none. */
  long cacheBytes() {
    return cache == Cache.NONE ? 0 : cacheSize;
  }
}
