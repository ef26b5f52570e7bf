package nbd.protocol;

/**
 * Text that came from the other side, fit for a log and for an error message: on one line, and
 * without characters that a terminal obeys or that change the order in which others are shown.
 */
public final class Printable {
  private static final int LONGEST_NAME = 80;
  private static final int LONGEST_SENTENCE = 250;

  private Printable() {}

  /**
   * The text with a question mark for each control character (C0, C1, line breaks), format
   * character (bidirectional controls and marks among them) and half of a surrogate pair.
   */
  public static String line(String text) {
    if (text.codePoints().noneMatch(Printable::isUnsafe)) {
      return text;
    }
    StringBuilder line = new StringBuilder(text.length());
    text.codePoints().forEach(point -> line.appendCodePoint(isUnsafe(point) ? '?' : point));
    return line.toString();
  }

  /** As {@link #line}, and no longer than a name in a sentence should be. */
  public static String name(String text) {
    return line(cut(text, LONGEST_NAME));
  }

  /** As {@link #line}, and no longer than the protocol recommends for an error's text. */
  public static String sentence(String text) {
    return line(cut(text, LONGEST_SENTENCE));
  }

  private static String cut(String text, int most) {
    return text.length() > most ? text.substring(0, most) + "..." : text;
  }

  private static boolean isUnsafe(int point) {
    return switch (Character.getType(point)) {
      case Character.CONTROL,
          Character.FORMAT,
          Character.LINE_SEPARATOR,
          Character.PARAGRAPH_SEPARATOR,
          Character.SURROGATE ->
          true;
      default -> false;
    };
  }
}
