package nbd.bench;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Reads as much of JSON as JMH writes: objects, lists, texts, numbers ("NaN" is a text there). */
final class Json {
  private final String text;
  private int at;

  private Json(String text) {
    this.text = text;
  }

  /**
   * A value: {@code Map<String, Object>}, {@code List<Object>}, {@code String} or {@code Double}.
   */
  static Object parse(String text) {
    return new Json(text).value();
  }

  private Object value() {
    skipSpace();
    return switch (text.charAt(at)) {
      case '{' -> object();
      case '[' -> list();
      case '"' -> string();
      default -> number();
    };
  }

  private Map<String, Object> object() {
    Map<String, Object> members = new LinkedHashMap<>();
    expect('{');
    while (!isNext('}')) {
      skipSpace();
      String name = string();
      skipSpace();
      expect(':');
      members.put(name, value());
      isNext(',');
    }
    return members;
  }

  private List<Object> list() {
    List<Object> elements = new ArrayList<>();
    expect('[');
    while (!isNext(']')) {
      elements.add(value());
      isNext(',');
    }
    return elements;
  }

  private String string() {
    StringBuilder made = new StringBuilder();
    expect('"');
    while (text.charAt(at) != '"') {
      if (text.charAt(at) == '\\') {
        at++;
      }
      made.append(text.charAt(at));
      at++;
    }
    expect('"');
    return made.toString();
  }

  private Object number() {
    int start = at;
    while (at < text.length() && ",]} \t\r\n".indexOf(text.charAt(at)) < 0) {
      at++;
    }
    String word = text.substring(start, at);
    return switch (word) {
      case "true", "false", "null" -> word;
      default -> Double.valueOf(word);
    };
  }

  private boolean isNext(char expected) {
    skipSpace();
    if (text.charAt(at) != expected) {
      return false;
    }
    at++;
    return true;
  }

  private void expect(char expected) {
    if (text.charAt(at) != expected) {
      throw new IllegalArgumentException(
          "expected %s at character %d, found %s".formatted(expected, at, text.charAt(at)));
    }
    at++;
  }

  private void skipSpace() {
    while (Character.isWhitespace(text.charAt(at))) {
      at++;
    }
  }
}
