package nbd.bench;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;

/**
 * A short run of every benchmark: {@code java -jar benchmarks.jar short [PICTURE.svg]} takes less
 * than two minutes, prints a table, and draws the flushes.
 */
public final class ShortProfile {
  private ShortProfile() {}

  /** Runs the benchmarks, prints the table and draws the picture. */
  public static void main(String[] arguments) throws RunnerException, IOException {
    List<Result> results = new ArrayList<>();
    results.addAll(
        run(
            new OptionsBuilder()
                .include(FlushAmplification.class.getSimpleName())
                .param("variant", "emulate", "plugin", "serial")
                .param("connections", "1", "4", "16")
                .jvmArgsAppend("-Dnbd.bench.flushes=320")
                .warmupIterations(1)
                .measurementIterations(3)));
    results.addAll(
        run(
            new OptionsBuilder()
                .include(MarkCost.class.getSimpleName())
                .include(FlushAmongMany.class.getSimpleName())
                .warmupIterations(2)
                .warmupTime(new TimeValue(500, TimeUnit.MILLISECONDS))
                .measurementIterations(3)
                .measurementTime(new TimeValue(500, TimeUnit.MILLISECONDS))));
    System.out.print(Report.table(results));
    if (arguments.length > 0) {
      Files.writeString(Path.of(arguments[0]), Picture.of(Report.flushes(results)));
    }
  }

  private static List<Result> run(ChainedOptionsBuilder options) throws RunnerException {
    return Result.of(new Runner(options.forks(1).build()).run());
  }
}
