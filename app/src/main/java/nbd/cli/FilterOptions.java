package nbd.cli;

import java.util.List;
import java.util.Optional;
import java.util.function.Predicate;
import nbd.cache.CacheMode;
import nbd.cache.CacheSettings;
import nbd.filter.FuaMode;
import nbd.multiconn.MultiConnMode;
import nbd.storage.ThreadModel;
import org.jspecify.annotations.Nullable;
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
      converter = Names.Fua.class,
      completionCandidates = Names.Fua.class,
      description =
          "How FUA writes and flushes are handled: one of ${COMPLETION-CANDIDATES} (default:"
              + " ${DEFAULT-VALUE}, FUA as the storage has it, else a write and a flush); see FLUSH"
              + " AND FUA in the manual page.")
  private FuaMode fua = FuaMode.PASS;

  @Option(
      names = CACHE,
      paramLabel = "MODE",
      defaultValue = "none",
      converter = Names.Cache.class,
      completionCandidates = Names.Cache.class,
      description =
          "Put one cache for all connections in front of the storage (default: ${DEFAULT-VALUE}):"
              + " one of ${COMPLETION-CANDIDATES}; see CACHE in the manual page.")
  private CacheChoice cache = CacheChoice.NONE;

  @Option(
      names = CACHE_SIZE,
      paramLabel = "SIZE",
      defaultValue = "256M",
      converter = Size.Converter.class,
      description =
          "With --cache: memory for cached data, for all exports together"
              + " (default: ${DEFAULT-VALUE}).")
  private long cacheSize = CacheSettings.DEFAULT_SIZE;

  @Option(
      names = CACHE_BLOCK_SIZE,
      paramLabel = "SIZE",
      defaultValue = "64K",
      converter = Size.Converter.class,
      description =
          "With --cache: read and keep blocks of this size, a power of 2"
              + " (default: ${DEFAULT-VALUE}).")
  private long cacheBlockSize = CacheSettings.DEFAULT_BLOCK_SIZE;

  /**
   * What is wrong with the options; null if nothing is.
   *
   * @param multiConn what was chosen for it
   * @param model to what the thread model was restricted
   * @param namesDiffer whether each export name stands for content of its own
   * @param given whether the user gave an option
   */
  @Nullable String problem(
      MultiConnMode multiConn, ThreadModel model, boolean namesDiffer, Predicate<String> given) {
    if (fua == FuaMode.DISCARD && multiConn == MultiConnMode.EMULATE) {
      return FUA + "=discard: not with --multi-conn-mode=emulate, which works by flushes";
    }
    if (cache == CacheChoice.NONE) {
      return List.of(CACHE_SIZE, CACHE_BLOCK_SIZE).stream()
          .filter(given)
          .findFirst()
          .map(option -> option + ": only with " + CACHE)
          .orElse(null);
    }
    if (model == ThreadModel.SERIALIZE_CONNECTIONS && namesDiffer) {
      return CACHE
          + ": not with --thread-model=serialize-connections and several exports, since it keeps a"
          + " connection of its own to each of them";
    }
    try {
      cache();
      return null;
    } catch (IllegalArgumentException wrong) {
      return CACHE + ": " + wrong.getMessage();
    }
  }

  /** Says at the start what somebody may not have meant. */
  void warn() {
    if (fua == FuaMode.DISCARD) {
      Logger.warn(
          "{}=discard: flushes and FUA are dropped, so what clients take for durable may be lost",
          FUA);
    }
  }

  /** How FUA and flushes are handled. */
  FuaMode fua() {
    return fua;
  }

  /** The cache, if there is to be one. */
  Optional<CacheSettings> cache() {
    return switch (cache) {
      case NONE -> Optional.empty();
      case WRITEBACK -> cache(CacheMode.WRITEBACK);
      case WRITETHROUGH -> cache(CacheMode.WRITETHROUGH);
      case UNSAFE -> cache(CacheMode.UNSAFE);
    };
  }

  /** The memory that the cache takes, in bytes; 0 if there is none. */
  long cacheBytes() {
    return cache == CacheChoice.NONE ? 0 : cacheSize;
  }

  private Optional<CacheSettings> cache(CacheMode mode) {
    if (cacheBlockSize > CacheSettings.MAXIMUM_BLOCK_SIZE) {
      throw new IllegalArgumentException(
          "a cache block of %d bytes; at most %d are possible"
              .formatted(cacheBlockSize, CacheSettings.MAXIMUM_BLOCK_SIZE));
    }
    return Optional.of(new CacheSettings(mode, cacheSize, (int) cacheBlockSize));
  }
}
