package nbd.bench;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** The table of JMH's results, in Markdown. */
final class Report {
  private Report() {}

  static String table(List<Result> results) {
    StringBuilder table = new StringBuilder();
    table
        .append("| variant, tracking | connections | dirty | flushes on | backend flush | ")
        .append("backend flushes per client flush | p50 | p99 | client flushes/s |\n")
        .append("|---|---:|---:|---|---:|---:|---:|---:|---:|\n");
    for (Result result : flushes(results)) {
      String dirty = result.parameter("dirty");
      table.append(
          String.format(
              Locale.ROOT,
              "| %s, %s | %s | %s | %s | %s ms | %.2f | %.2f ms | %.2f ms | %,.0f |%n",
              result.parameter("variant"),
              result.parameter("tracking").toLowerCase(Locale.ROOT),
              result.parameter("connections"),
              dirty.equals("0") ? "all" : dirty,
              result.parameter("pattern"),
              result.parameter("flushMilliseconds"),
              result.figure("amplification"),
              result.figure("p50Milliseconds"),
              result.figure("p99Milliseconds"),
              result.figure("flushesPerSecond")));
    }
    List<Result> others = new ArrayList<>(results);
    others.removeAll(flushes(results));
    if (!others.isEmpty()) {
      table.append("\n| benchmark | time |\n|---|---:|\n");
    }
    for (Result result : others) {
      String with = result.parameters().isEmpty() ? "" : " " + result.parameters();
      table.append(
          String.format(
              Locale.ROOT,
              "| %s%s | %.2f %s |%n",
              result.benchmark(),
              with,
              result.score(),
              result.unit().replace("/op", "")));
    }
    return table.toString();
  }

  static List<Result> flushes(List<Result> results) {
    return results.stream().filter(result -> result.benchmark().startsWith("FlushAmp")).toList();
  }
}
