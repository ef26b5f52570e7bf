package nbd.cli;

import java.math.BigInteger;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.time.Duration;
import java.time.temporal.ChronoUnit;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import nbd.filter.ErrorRate;
import nbd.protocol.NbdError;
import picocli.CommandLine;
import picocli.CommandLine.Model.ArgSpec;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.PositionalParamSpec;

/**
 * The values of options, as users write them: sizes, durations, rates of errors, file names, and
 * the names of an enum's constants, in lower case with hyphens between the words.
 */
final class OptionValues {
  private static final String SIZE_UNITS = "KMGTPE";
  private static final Pattern SIZE = Pattern.compile("(\\d+)([" + SIZE_UNITS + "]?)");

  private static final Pattern DURATION = Pattern.compile("(\\d{1,9})(ms|s|m|h|)");
  private static final Map<String, ChronoUnit> DURATION_UNITS =
      Map.of(
          "ms", ChronoUnit.MILLIS,
          "s", ChronoUnit.SECONDS,
          "m", ChronoUnit.MINUTES,
          "h", ChronoUnit.HOURS,
          "", ChronoUnit.SECONDS);

  private static final Map<String, NbdError> ERRORS =
      byName(NbdError.values(), error -> error == NbdError.NONE ? "" : error.name());

  private OptionValues() {}

  /** Makes a program's commands read their options' values this way; every long is a size. */
  static void register(CommandLine program) {
    program
        .registerConverter(int.class, OptionValues::number)
        .registerConverter(Integer.class, OptionValues::number)
        .registerConverter(long.class, OptionValues::size)
        .registerConverter(Long.class, OptionValues::size)
        .registerConverter(Duration.class, OptionValues::duration)
        .registerConverter(ErrorRate.class, OptionValues::errorRate)
        .registerConverter(Path.class, OptionValues::path);
    nameConstants(program.getCommandSpec());
    program.getSubcommands().values().forEach(command -> nameConstants(command.getCommandSpec()));
  }

  private static void nameConstants(CommandSpec command) {
    for (OptionSpec option : List.copyOf(command.options())) {
      // Every option is removed and added again, so that they keep their order.
      command.remove(option);
      command.addOption(option.type().isEnum() ? withNames(option) : option);
    }
    for (PositionalParamSpec argument : List.copyOf(command.positionalParameters())) {
      command.remove(argument);
      command.addPositional(argument.type().isEnum() ? withNames(argument) : argument);
    }
  }

  private static OptionSpec withNames(OptionSpec option) {
    Map<String, Object> constants = constants(option);
    return option.toBuilder()
        .completionCandidates(constants.keySet())
        .converters(text -> oneOf(constants, text))
        .build();
  }

  private static PositionalParamSpec withNames(PositionalParamSpec argument) {
    Map<String, Object> constants = constants(argument);
    return argument.toBuilder()
        .completionCandidates(constants.keySet())
        .converters(text -> oneOf(constants, text))
        .build();
  }

  private static Map<String, Object> constants(ArgSpec argument) {
    return byName(argument.type().getEnumConstants(), OptionValues::nameOf);
  }

  /** Returns the name by which users know a constant of an enum. */
  static String nameOf(Object constant) {
    return constant.toString().toLowerCase(Locale.ROOT).replace('_', '-');
  }

  /** The values by their names; a value whose name is empty is left out. */
  private static <T> Map<String, T> byName(T[] values, Function<T, String> name) {
    Map<String, T> byName = new LinkedHashMap<>();
    Arrays.stream(values).forEach(value -> byName.put(name.apply(value), value));
    byName.remove("");
    return byName;
  }

  private static <T> T oneOf(Map<String, T> values, String name) {
    T value = values.get(name);
    if (value == null) {
      throw new UsageException(
          "\"%s\" is none of %s".formatted(name, String.join(", ", values.keySet())));
    }
    return value;
  }

  private static int number(String text) {
    try {
      return Integer.parseInt(text);
    } catch (NumberFormatException wrong) {
      throw new UsageException("\"" + text + "\" is not a number, of at most " + Integer.MAX_VALUE);
    }
  }

  /** Reads a size: bytes, or a number with K, M, G, T, P or E for powers of 1024. */
  static long size(String text) {
    Matcher matcher = SIZE.matcher(text.toUpperCase(Locale.ROOT));
    if (!matcher.matches()) {
      throw new UsageException(
          "\"" + text + "\" is not a size; write bytes, or a number with K, M, G, T, P or E");
    }
    String unit = matcher.group(2);
    int shift = unit.isEmpty() ? 0 : 10 * (SIZE_UNITS.indexOf(unit) + 1);
    BigInteger size = new BigInteger(matcher.group(1)).shiftLeft(shift);
    if (size.bitLength() > Long.SIZE - 1) {
      throw new UsageException(
          "\"" + text + "\" is too large, sizes are less than 8E (" + Long.MAX_VALUE + " bytes)");
    }
    return size.longValue();
  }

  /** Reads a duration: a number with ms, s, m or h; without a unit, seconds. */
  static Duration duration(String text) {
    Matcher matcher = DURATION.matcher(text);
    ChronoUnit unit = matcher.matches() ? DURATION_UNITS.get(matcher.group(2)) : null;
    if (unit == null) {
      throw new UsageException(
          "\"" + text + "\" is not a duration; write a number with ms, s, m or h");
    }
    return Duration.of(Long.parseLong(matcher.group(1)), unit);
  }

  /** Reads a rate from 0 to 1, which a colon and the name of an error may follow. */
  static ErrorRate errorRate(String text) {
    int colon = text.indexOf(':');
    String rate = colon < 0 ? text : text.substring(0, colon);
    NbdError error =
        colon < 0
            ? NbdError.EIO
            : oneOf(ERRORS, text.substring(colon + 1).toUpperCase(Locale.ROOT));
    try {
      return new ErrorRate(Double.parseDouble(rate), error);
    } catch (IllegalArgumentException wrong) {
      throw new UsageException("\"" + rate + "\" is not a rate from 0 to 1");
    }
  }

  /** Reads the name of a file, which may not be empty. */
  static Path path(String text) {
    UsageException.refuseIf(text.isEmpty(), "the name of the file is missing");
    try {
      return Path.of(text);
    } catch (InvalidPathException invalid) {
      throw new UsageException("\"" + text + "\" is not a file name");
    }
  }
}
