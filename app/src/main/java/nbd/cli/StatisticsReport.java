package nbd.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.function.ToLongFunction;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import nbd.cache.CacheStatistics;
import nbd.filter.Statistics;
import nbd.filter.Statistics.Count;

/**
 * The counts that {@code --stats} writes to a file when the server ends.
 *
 * @param client requests from clients, counted before all filters
 * @param cache the cache's counts, if there is a cache
 * @param backend requests to the storage, counted behind all filters
 * @param parts those of exports that are counted for themselves, by their names; any thread may add
 *     some
 */
record StatisticsReport(
    Path file,
    Statistics client,
    Optional<CacheStatistics> cache,
    Statistics backend,
    Map<String, StatisticsReport> parts) {
  /** Makes a report without parts. */
  StatisticsReport(
      Path file, Statistics client, Optional<CacheStatistics> cache, Statistics backend) {
    this(file, client, cache, backend, new ConcurrentSkipListMap<>());
  }

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
    return empty(file, hasCache);
  }

  private static StatisticsReport empty(Path file, boolean hasCache) {
    return new StatisticsReport(
        file,
        new Statistics(),
        hasCache ? Optional.of(new CacheStatistics()) : Optional.empty(),
        new Statistics());
  }

  /**
   * Returns the part of an export; an export that comes again under its name goes on with its
   * counts.
   */
  StatisticsReport part(String name, boolean hasCache) {
    return parts.merge(
        name,
        empty(file, hasCache),
        (before, fresh) -> before.cache.isPresent() || !hasCache ? before : before.with(fresh));
  }

  private StatisticsReport with(StatisticsReport fresh) {
    return new StatisticsReport(file, client, fresh.cache, backend);
  }

  /** Returns whether a client or the storage has been counted. */
  boolean hasCounted() {
    return client.get(Count.OPEN) > 0;
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
    List<StatisticsReport> all = Stream.concat(Stream.of(this), parts.values().stream()).toList();
    String exports =
        parts.entrySet().stream()
            .map(
                part ->
                    ExportReport.quoted(part.getKey())
                        + ":{"
                        + members(List.of(part.getValue()))
                        + "}")
            .collect(Collectors.joining(","));
    return "{%s%s}%n"
        .formatted(members(all), exports.isEmpty() ? "" : ",\"exports\":{" + exports + "}");
  }

  /** Formats the sums of the counts of several reports. */
  private static String members(List<StatisticsReport> reports) {
    List<CacheStatistics> caches =
        reports.stream().flatMap(report -> report.cache.stream()).toList();
    ToLongFunction<Count> clients = count -> sum(reports, report -> report.client.get(count));
    ToLongFunction<Count> backends = count -> sum(reports, report -> report.backend.get(count));
    return "\"client\":%s,%s\"backend\":%s,\"flush_amplification\":%s"
        .formatted(
            json(clients),
            caches.isEmpty() ? "" : "\"cache\":" + caches(caches) + ",",
            json(backends),
            amplification(clients, backends));
  }

  private static <T> long sum(List<T> counts, ToLongFunction<T> count) {
    return counts.stream().mapToLong(count).sum();
  }

  private static String caches(List<CacheStatistics> caches) {
    return "{\"hits\":%d,\"misses\":%d,\"write_backs\":%d,\"dirty_bytes\":%d}"
        .formatted(
            sum(caches, CacheStatistics::hits),
            sum(caches, CacheStatistics::misses),
            sum(caches, CacheStatistics::writeBacks),
            sum(caches, CacheStatistics::dirtyBytes));
  }

  private static String json(ToLongFunction<Count> counts) {
    return Arrays.stream(Count.values())
        .map(count -> "\"%s\":%d".formatted(count.reportName(), counts.applyAsLong(count)))
        .collect(Collectors.joining(",", "{", "}"));
  }

  /**
   * Flushes that reached the backend for each flush that clients sent; a FUA that did not reach the
   * backend as such counts as a flush sent.
   */
  private static String amplification(ToLongFunction<Count> client, ToLongFunction<Count> backend) {
    // Negative with --fua=force, whose FUA no client sent.
    long emulated = Math.max(0, client.applyAsLong(Count.FUA) - backend.applyAsLong(Count.FUA));
    long sent = client.applyAsLong(Count.FLUSH) + emulated;
    return sent == 0
        ? "null"
        : String.format(Locale.ROOT, "%.3f", (double) backend.applyAsLong(Count.FLUSH) / sent);
  }
}
