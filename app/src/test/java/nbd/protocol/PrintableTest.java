package nbd.protocol;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Text of the other side, which cannot forge a line of the log, nor change how one is shown. */
final class PrintableTest {
  @ParameterizedTest
  @ValueSource(
      ints = {
        0, 7, '\t', '\n', '\r', 0x1b, 0x7f, 0x80, 0x85, 0x9b, 0x9f, 0xad, 0x61c, 0x200b, 0x200e,
        0x200f, 0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068,
        0x2069, 0xfeff, 0xd800, 0xdfff, 0xe0001
      })
  void controlCharactersBecomeQuestionMarks(int point) {
    String text = "a" + Character.toString(point) + "b";
    assertThat(Printable.line(text)).isEqualTo("a?b");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "disk 1", "größe", "磁盘", "диск", "💾", "e\u0301", "\"\\<&>"})
  void ordinaryTextStays(String text) {
    assertThat(Printable.line(text)).isEqualTo(text);
    assertThat(Printable.name(text)).isEqualTo(text);
  }

  @Test
  void aLongNameDoesNotFillTheLine() {
    assertThat(Printable.name("💾".repeat(4096))).hasSizeLessThan(90).doesNotContain("?");
    assertThat(Printable.name("x💾".repeat(4096))).hasSizeLessThan(90);
    assertThat(Printable.sentence("x".repeat(4096))).hasSizeLessThan(256);
  }
}
