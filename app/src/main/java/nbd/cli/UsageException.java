package nbd.cli;

import java.util.Collection;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.TypeConversionException;

/**
 * Wrong usage: the program says the message and ends with status 2. Thrown for the value of an
 * option, picocli puts the option's name before the message.
 */
final class UsageException extends TypeConversionException {
  private static final long serialVersionUID = 1L;

  UsageException(@Nullable String message) {
    super(message);
  }

  /** Throws if something is wrong. */
  static void refuseIf(boolean wrong, String message) {
    if (wrong) {
      throw new UsageException(message);
    }
  }

  /**
   * Throws if the user gave one of these options.
   *
   * @param isGiven whether the user gave an option
   * @param reason follows the option's name in the message
   */
  static void refuse(Collection<String> options, Predicate<String> isGiven, String reason) {
    options.stream()
        .filter(isGiven)
        .findFirst()
        .ifPresent(option -> refuseIf(true, option + ": " + reason));
  }
}
