package nbd.bench;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * One line of what JMH measured.
 *
 * @param benchmark the method's name, with its class
 * @param parameters what it was run with
 * @param score the main figure
 * @param unit of the score
 * @param figures the figures beside it, each the median of the iterations
 */
record Result(
    String benchmark,
    Map<String, String> parameters,
    double score,
    String unit,
    Map<String, Double> figures) {

  /** Reads a file that JMH wrote with {@code -rf json}. */
  static List<Result> read(Path file) throws IOException {
    List<Result> results = new ArrayList<>();
    for (Object element : (List<?>) Json.parse(Files.readString(file))) {
      results.add(of((Map<?, ?>) element));
    }
    return results;
  }

  private static Result of(Map<?, ?> run) {
    Map<String, String> parameters = new LinkedHashMap<>();
    if (run.get("params") instanceof Map<?, ?> given) {
      given.forEach((name, value) -> parameters.put(String.valueOf(name), String.valueOf(value)));
    }
    Map<String, Double> figures = new LinkedHashMap<>();
    if (run.get("secondaryMetrics") instanceof Map<?, ?> beside) {
      beside.forEach(
          (name, metric) -> figures.put(String.valueOf(name), median((Map<?, ?>) metric)));
    }
    String name = String.valueOf(run.get("benchmark"));
    Map<?, ?> primary = (Map<?, ?>) Objects.requireNonNull(run.get("primaryMetric"));
    return new Result(
        name.substring(name.lastIndexOf('.', name.lastIndexOf('.') - 1) + 1),
        parameters,
        median(primary),
        String.valueOf(primary.get("scoreUnit")),
        figures);
  }

  /** JMH adds event counters up over the iterations; each iteration by itself says more. */
  private static double median(Map<?, ?> metric) {
    List<Double> iterations = new ArrayList<>();
    for (Object fork : (List<?>) Objects.requireNonNull(metric.get("rawData"))) {
      for (Object value : (List<?>) fork) {
        iterations.add((Double) value);
      }
    }
    Collections.sort(iterations);
    return iterations.get(iterations.size() / 2);
  }

  double figure(String name) {
    return figures.getOrDefault(name, Double.NaN);
  }

  String parameter(String name) {
    return parameters.getOrDefault(name, "");
  }
}
