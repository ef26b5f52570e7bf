package nbd.protocol;

/**
 * Makes text from the other side safe for a log and for an error message: one line, without
 * characters that a terminal obeys or that change the order in which others are shown.
 */
public final class Printable {
  private static final int LONGEST_NAME = 80;
  private static final int LONGEST_SENTENCE = 250;

  private Printable() {}

  /**
   * Replaces each control character (C0, C1, line breaks), format character (bidirectional controls
   * and marks among them) and half of a surrogate pair by a question mark.
   */
  public static String line(String text) {
    if (text.codePoints().noneMatch(Printable::isUnsafe)) {
      return text;
    }
    StringBuilder line = new StringBuilder(text.length());
    text.codePoints().forEach(point -> line.appendCodePoint(isUnsafe(point) ? '?' : point));
    return line.toString();
  }

  /** Does what {@link #line} does, and shortens the text to a name in a sentence. */
  public static String name(String text) {
    return line(cut(text, LONGEST_NAME));
  }

  /** Does what {@link #line} does, and shortens the text as the protocol recommends for errors. */
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
