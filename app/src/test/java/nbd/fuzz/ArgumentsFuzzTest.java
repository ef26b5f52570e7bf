package nbd.fuzz;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import com.code_intelligence.jazzer.junit.FuzzTest;
import java.math.BigInteger;
import java.time.Duration;
import java.util.Locale;
import java.util.Optional;
import nbd.cli.FuzzedArguments;

/** The reading of any text as the value of an option: parsed, or refused. */
final class ArgumentsFuzzTest {
  private static final BigInteger LONGEST = BigInteger.valueOf(Long.MAX_VALUE);

  @FuzzTest
  void anyTextIsAValueOrRefused(byte[] data) {
    String text = new String(data, UTF_8);
    assertThat(FuzzedArguments.size(text)).isEqualTo(size(text));
    Optional<Duration> duration = FuzzedArguments.duration(text);
    duration.ifPresent(value -> assertThat(value.toMillis()).isEqualTo(millis(text)));
    FuzzedArguments.rate(text).ifPresent(rate -> assertThat(rate >= 0 && rate <= 1).isTrue());
  }

  private static int digits(String text) {
    int digits = 0;
    while (digits < text.length() && text.charAt(digits) >= '0' && text.charAt(digits) <= '9') {
      digits++;
    }
    return digits;
  }

  private static Optional<Long> size(String text) {
    int digits = digits(text);
    String unit = text.substring(digits);
    int power = unit.isEmpty() ? 0 : 1 + "KMGTPE".indexOf(unit.toUpperCase(Locale.ROOT));
    boolean known = unit.isEmpty() || (unit.length() == 1 && power > 0);
    if (digits == 0 || !known) {
      return Optional.empty();
    }
    BigInteger size = new BigInteger(text.substring(0, digits)).shiftLeft(10 * power);
    return size.compareTo(LONGEST) > 0 ? Optional.empty() : Optional.of(size.longValue());
  }

  private static long millis(String text) {
    int digits = digits(text);
    long unit =
        switch (text.substring(digits)) {
          case "ms" -> 1;
          case "m" -> 60_000;
          case "h" -> 3_600_000;
          default -> 1000;
        };
    return unit * Long.parseLong(text.substring(0, digits));
  }
}
