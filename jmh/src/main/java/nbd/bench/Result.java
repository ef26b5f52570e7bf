package nbd.bench;

import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.openjdk.jmh.infra.BenchmarkParams;
import org.openjdk.jmh.results.IterationResult;
import org.openjdk.jmh.results.RunResult;

/**
 * One benchmark's result, a line of the report.
 *
 * @param benchmark the method's name, with its class
 * @param parameters the benchmark's parameters
 * @param score the main figure, the median of the iterations
 * @param unit the unit of the score
 * @param figures the figures beside it, each the median of the iterations
 */
record Result(
    String benchmark,
    Map<String, String> parameters,
    double score,
    String unit,
    Map<String, Double> figures) {

  static List<Result> of(Collection<RunResult> runs) {
    return runs.stream().map(Result::of).toList();
  }

  private static Result of(RunResult run) {
    BenchmarkParams given = run.getParams();
    Map<String, String> parameters = new LinkedHashMap<>();
    given.getParamsKeys().forEach(name -> parameters.put(name, given.getParam(name)));
    // JMH sums event counters over the iterations; here each iteration counts by itself.
    List<IterationResult> iterations =
        run.getBenchmarkResults().stream()
            .flatMap(fork -> fork.getIterationResults().stream())
            .toList();
    Map<String, Double> figures = new LinkedHashMap<>();
    for (String name : run.getSecondaryResults().keySet()) {
      figures.put(name, median(iterations, name));
    }
    String name = given.getBenchmark();
    return new Result(
        name.substring(name.lastIndexOf('.', name.lastIndexOf('.') - 1) + 1),
        parameters,
        median(iterations, run.getPrimaryResult().getLabel()),
        run.getPrimaryResult().getScoreUnit(),
        figures);
  }

  private static double median(List<IterationResult> iterations, String name) {
    List<Double> scores =
        iterations.stream()
            .map(
                iteration ->
                    Optional.ofNullable(iteration.getSecondaryResults().get(name))
                        .orElse(iteration.getPrimaryResult())
                        .getScore())
            .sorted()
            .toList();
    return scores.get(scores.size() / 2);
  }

  double figure(String name) {
    return figures.getOrDefault(name, Double.NaN);
  }

  String parameter(String name) {
    return parameters.getOrDefault(name, "");
  }
}
