package nbd.cli;

import java.time.Duration;
import java.util.Optional;
import picocli.CommandLine.TypeConversionException;

/** What reads the values of options, for texts that are none. */
public final class FuzzedArguments {
  private FuzzedArguments() {}

  /** A size; empty if it is refused. */
  public static Optional<Long> size(String text) {
    try {
      return Optional.of(new Size.Converter().convert(text));
    } catch (TypeConversionException refused) {
      return Optional.empty();
    }
  }

  /** A duration; empty if it is refused. */
  public static Optional<Duration> duration(String text) {
    try {
      return Optional.of(new DurationConverter().convert(text));
    } catch (TypeConversionException refused) {
      return Optional.empty();
    }
  }

  /** A rate of errors; empty if it is refused. */
  public static Optional<Double> rate(String text) {
    try {
      return Optional.of(new ErrorRateConverter().convert(text).rate());
    } catch (TypeConversionException refused) {
      return Optional.empty();
    }
  }
}
