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

/**
 * The counts that {@code --stats} writes to a file when the server ends.
 *
 * @param client requests from clients, counted before all filters
 * @param cache the cache's counts, if there is a cache
 * @param backend requests to the storage, counted behind all filters
 */
record StatisticsReport(
    Path file, Statistics client, Optional<CacheStatistics> cache, Statistics backend) {
  /**
   * Makes a report without counts, and the file, so that it fails now rather than at the end.
   *
   * @throws IOException with a message for the user
   */
  static StatisticsReport to(Path file, boolean hasCache) throws IOException {
    try {
      Files.newByteChannel(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE).close();
    } catch (IOException failure) {
      throw unwritten(file, failure);
    }
    return new StatisticsReport(
        file,
        new Statistics(),
        hasCache ? Optional.of(new CacheStatistics()) : Optional.empty(),
        new Statistics());
  }

  private static IOException unwritten(Path file, IOException failure) {
    return new IOException(
        "--stats: %s cannot be written: %s".formatted(file, Failure.reason(failure)), failure);
  }

  /** Forgets the requests so far. */
  void forget() {
    client.forget();
    backend.forget();
  }

  /**
   * Writes the file.
   *
   * @throws IOException with a message for the user
   */
  void write() throws IOException {
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
   * Flushes that reached the backend for each flush that clients sent; a FUA that did not reach the
   * backend as such counts as a flush sent.
   */
  private String amplification() {
    // Negative with --fua=force, whose FUA no client sent.
    long emulated = Math.max(0, client.get(Count.FUA) - backend.get(Count.FUA));
    long sent = client.get(Count.FLUSH) + emulated;
    return sent == 0
        ? "null"
        : String.format(Locale.ROOT, "%.3f", (double) backend.get(Count.FLUSH) / sent);
  }
}
