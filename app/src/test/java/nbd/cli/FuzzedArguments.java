package nbd.cli;

import java.time.Duration;
import java.util.Optional;
import java.util.function.Supplier;

/** The readers of options' values, for the fuzz tests; an empty result is a value refused. */
public final class FuzzedArguments {
  private FuzzedArguments() {}

  public static Optional<Long> size(String text) {
    return read(() -> OptionValues.size(text));
  }

  public static Optional<Duration> duration(String text) {
    return read(() -> OptionValues.duration(text));
  }

  public static Optional<Double> rate(String text) {
    return read(() -> OptionValues.errorRate(text).rate());
  }

  private static <T> Optional<T> read(Supplier<T> value) {
    try {
      return Optional.of(value.get());
    } catch (UsageException refused) {
      return Optional.empty();
    }
  }
}
