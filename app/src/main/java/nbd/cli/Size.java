package nbd.cli;

import java.math.BigInteger;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** Sizes as users write them: bytes, or with K, M, G, T, P or E for powers of 1024. */
final class Size {
  private static final Pattern FORM = Pattern.compile("(\\d+)([KMGTPE]?)");
  private static final String SUFFIXES = "KMGTPE";

  private Size() {}

  /** For options. */
  static final class Converter implements ITypeConverter<Long> {
    @Override
    public Long convert(String text) {
      try {
        return parse(text);
      } catch (IllegalArgumentException wrong) {
        throw new TypeConversionException(wrong.getMessage());
      }
    }
  }

  /**
   * Reads one.
   *
   * @return in bytes
   * @throws IllegalArgumentException if it is not one; the message says how it is written
   */
  static long parse(String text) {
    Matcher matcher = FORM.matcher(text.toUpperCase(Locale.ROOT));
    if (!matcher.matches()) {
      throw new IllegalArgumentException(
          "\"" + text + "\" is not a size; write bytes, or a number with K, M, G, T, P or E");
    }
    int shift = 10 * (SUFFIXES.indexOf(matcher.group(2).isEmpty() ? "?" : matcher.group(2)) + 1);
    BigInteger size = new BigInteger(matcher.group(1)).shiftLeft(shift);
    if (size.bitLength() > Long.SIZE - 1) {
      throw new IllegalArgumentException(
          "\"" + text + "\" is too large, sizes are less than 8E (" + Long.MAX_VALUE + " bytes)");
    }
    return size.longValue();
  }
}
