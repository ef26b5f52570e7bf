package nbd.control;

import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;

/**
 * Words in a line, quoted nearly as in a shell: blanks separate words; in single quotes every
 * character stands for itself; elsewhere a backslash takes the next character as it is, except that
 * in double quotes {@code \n} is a line break.
 */
public final class Words {
  private static final Pattern PLAIN = Pattern.compile("[\\w@%+=:,./-]+");

  private Words() {}

  /**
   * Splits a line into words.
   *
   * @throws IllegalArgumentException if a quote is not closed; the message is for the user
   */
  public static List<String> split(String line) {
    List<String> words = new ArrayList<>();
    StringBuilder word = new StringBuilder();
    boolean within = false;
    char quote = 0;
    for (int i = 0; i < line.length(); i++) {
      char next = line.charAt(i);
      if (next == '\\' && quote != '\'') {
        i++;
        if (i == line.length()) {
          throw new IllegalArgumentException("nothing follows the backslash at the end");
        }
        char escaped = line.charAt(i);
        word.append(quote == '"' && escaped == 'n' ? '\n' : escaped);
        within = true;
      } else if (quote != 0) {
        if (next == quote) {
          quote = 0;
        } else {
          word.append(next);
        }
      } else if (next == '\'' || next == '"') {
        quote = next;
        within = true;
      } else if (Character.isWhitespace(next)) {
        if (within) {
          words.add(word.toString());
          word.setLength(0);
          within = false;
        }
      } else {
        word.append(next);
        within = true;
      }
    }
    if (quote != 0) {
      throw new IllegalArgumentException("a quote (" + quote + ") is not closed");
    }
    if (within) {
      words.add(word.toString());
    }
    return words;
  }

  /** Writes words in one line, from which {@link #split} makes the same words. */
  public static String join(List<String> words) {
    return String.join(" ", words.stream().map(Words::quoted).toList());
  }

  private static String quoted(String word) {
    return PLAIN.matcher(word).matches()
        ? word
        : '"' + word.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n") + '"';
  }
}
