package nbd.cli;

/** Strings as JSON has them. */
final class JsonText {
  private JsonText() {}

  /** The string with its quotes, everything escaped that has to be. */
  static String quoted(String text) {
    StringBuilder quoted = new StringBuilder("\"");
    text.codePoints()
        .forEach(
            character -> {
              if (character == '"' || character == '\\') {
                quoted.append('\\').appendCodePoint(character);
              } else if (character < ' ' || character == 0x7f) {
                quoted.append("\\u%04x".formatted(character));
              } else {
                quoted.appendCodePoint(character);
              }
            });
    return quoted.append('"').toString();
  }
}
