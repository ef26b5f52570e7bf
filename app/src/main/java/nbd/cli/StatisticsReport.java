package nbd.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.Locale;
import java.util.Optional;
import java.util.stream.Collectors;
import nbd.cache.CacheStatistics;
import nbd.filter.Statistics;
import nbd.filter.Statistics.Count;
import org.jspecify.annotations.Nullable;

/**
 * What {@code --stats} writes.
 *
 * @param client counts before all filters
 * @param cache what the cache did, if there is one
 * @param backend counts before the backend
 * @param file where to; null for nowhere
 */
record StatisticsReport(
    Statistics client, Optional<CacheStatistics> cache, Statistics backend, @Nullable Path file) {
  /**
   * Makes sure that the file can be written, before anybody relies on it.
   *
   * @param file null for none
   * @throws IOException with a message for the user
   */
  static void check(@Nullable Path file) throws IOException {
    if (file == null) {
      return;
    }
    try {
      Files.newByteChannel(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE).close();
    } catch (IOException failure) {
      throw unwritten(file, failure);
    }
  }

  private static IOException unwritten(Path file, IOException failure) {
    return new IOException(
        "--stats: %s cannot be written: %s".formatted(file, OwnFile.reason(failure)), failure);
  }

  /**
   * Writes the file, if one is wanted.
   *
   * @throws IOException with a message for the user
   */
  void write() throws IOException {
    if (file == null) {
      return;
    }
    try {
      Files.writeString(file, json());
    } catch (IOException failure) {
      throw unwritten(file, failure);
    }
  }

  String json() {
    return "{\"client\":%s,%s\"backend\":%s,\"flush_amplification\":%s}%n"
        .formatted(
            json(client),
            cache.map(counts -> "\"cache\":" + json(counts) + ",").orElse(""),
            json(backend),
            amplification());
  }

  private static String json(CacheStatistics counts) {
    return "{\"hits\":%d,\"misses\":%d,\"write_backs\":%d,\"dirty_bytes\":%d}"
        .formatted(counts.hits(), counts.misses(), counts.writeBacks(), counts.dirtyBytes());
  }

  private static String json(Statistics statistics) {
    return Arrays.stream(Count.values())
        .map(count -> "\"%s\":%d".formatted(count.reportName(), statistics.get(count)))
        .collect(Collectors.joining(",", "{", "}"));
  }

  /**
   * Flushes that reached the backend for each that clients sent; a FUA that did not reach the
   * backend as such was a flush.
   */
  private String amplification() {
    // Forced FUA is none that a client sent.
    long emulated = Math.max(0, client.get(Count.FUA) - backend.get(Count.FUA));
    long sent = client.get(Count.FLUSH) + emulated;
    return sent == 0
        ? "null"
        : String.format(Locale.ROOT, "%.3f", (double) backend.get(Count.FLUSH) / sent);
  }
}
