package nbd.bench;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.results.format.ResultFormatType;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;

/**
 * Every benchmark, briefly: {@code java -jar benchmarks.jar short DIRECTORY} takes less than two
 * minutes, and leaves two files of JMH's there: {@code flushes.json} and {@code marks.json}.
 */
public final class ShortProfile {
  private ShortProfile() {}

  /** Runs it. */
  public static void main(String[] arguments) throws RunnerException, java.io.IOException {
    Path directory = Path.of(arguments.length > 0 ? arguments[0] : ".");
    Files.createDirectories(directory);
    run(
        new OptionsBuilder()
            .include(FlushAmplification.class.getSimpleName())
            .param("variant", "emulate", "plugin", "serial")
            .param("connections", "1", "4", "16")
            .jvmArgsAppend("-Dnbd.bench.flushes=320")
            .warmupIterations(1)
            .measurementIterations(3),
        directory.resolve("flushes.json"));
    run(
        new OptionsBuilder()
            .include(MarkCost.class.getSimpleName())
            .include(FlushAmongMany.class.getSimpleName())
            .warmupIterations(2)
            .warmupTime(new TimeValue(500, TimeUnit.MILLISECONDS))
            .measurementIterations(3)
            .measurementTime(new TimeValue(500, TimeUnit.MILLISECONDS)),
        directory.resolve("marks.json"));
  }

  private static void run(ChainedOptionsBuilder options, Path result) throws RunnerException {
    new Runner(
            options.forks(1).resultFormat(ResultFormatType.JSON).result(result.toString()).build())
        .run();
  }
}
