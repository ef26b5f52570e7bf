package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The form of numbers and texts in the output of info. */
final class ExportReportTest {
  @ParameterizedTest
  @CsvSource({
    "0, 0",
    "1, 1",
    "1023, 1023",
    "1024, 1K",
    "1025, 1025",
    "1572864, 1536K",
    "5368709120, 5G",
    "1099511627776, 1T",
    "1125899906842624, 1P",
    "8070450532247928832, 7E",
    "9223372036854775807, 9223372036854775807",
  })
  void sizesAreWholeNumbersOfTheLargestUnit(long size, String human) {
    assertThat(ExportReport.humanSize(size)).isEqualTo(human);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {"plain|\"plain\"", "a\"b\\c|\"a\\\"b\\\\c\"", "é\t\u007f|\"é\\u0009\\u007f\""})
  void textsAreEscapedAsJsonHasIt(String text, String quoted) {
    assertThat(ExportReport.quoted(text)).isEqualTo(quoted);
  }
}
