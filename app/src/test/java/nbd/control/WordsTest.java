package nbd.control;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Words in a line, with quotes. */
final class WordsTest {
  @Test
  void blanksSeparateWordsAndQuotesKeepThem() {
    assertThat(Words.split("")).isEmpty();
    assertThat(Words.split("  a\t b  ")).containsExactly("a", "b");
    assertThat(Words.split("'a b' \"c d\" e\\ f g'h 'i"))
        .containsExactly("a b", "c d", "e f", "gh i");
    assertThat(Words.split("'' \"\"")).containsExactly("", "");
    assertThat(Words.split("'a\\n\"' \"\\\\ \\\" ' \\n\" \\n"))
        .containsExactly("a\\n\"", "\\ \" ' \n", "n");
  }

  @ParameterizedTest
  @ValueSource(strings = {"'", "a \"b", "a\\", "\"\\\"", "'it\\'s it's"})
  void anOpenEndIsRefused(String line) {
    assertThatThrownBy(() -> Words.split(line))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageMatching("a quote .* is not closed|nothing follows the backslash at the end");
  }

  @Test
  void wordsThatAreJoinedAreSplitAgain() {
    Random random = new Random(17);
    String alphabet = "ab '\"\\n\n\t{}=é☃";
    for (int i = 0; i < 10_000; i++) {
      List<String> words =
          IntStream.range(0, random.nextInt(4))
              .mapToObj(
                  _ -> {
                    StringBuilder word = new StringBuilder();
                    for (int length = random.nextInt(6); length > 0; length--) {
                      word.append(alphabet.charAt(random.nextInt(alphabet.length())));
                    }
                    return word.toString();
                  })
              .toList();
      String line = Words.join(words);
      assertThat(line).doesNotContain("\n");
      assertThat(Words.split(line)).isEqualTo(words);
    }
  }
}
