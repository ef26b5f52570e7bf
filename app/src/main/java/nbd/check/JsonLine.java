package nbd.check;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A JSON object on one line: its values are integers, booleans, strings without escapes, and arrays
 * of integers and of such arrays. An IllegalArgumentException says what is wrong with it.
 */
final class JsonLine {
  private static final int DEEPEST = 2;

  private final Map<String, Object> members = new LinkedHashMap<>();
  private final String text;
  private int at;

  JsonLine(String text) {
    this.text = text;
    expect('{');
    do {
      String name = string();
      expect(':');
      if (members.put(name, value(0)) != null) {
        throw new IllegalArgumentException("\"%s\" is there twice".formatted(name));
      }
    } while (isNext(','));
    expect('}');
    skipSpace();
    if (at < text.length()) {
      throw wrong("the end of the line");
    }
  }

  /** Says whether it has a member of this name. */
  boolean has(String name) {
    return members.containsKey(name);
  }

  /** Takes a member out. */
  <T> T take(String name, Class<T> type) {
    if (!type.isInstance(members.get(name))) {
      throw new IllegalArgumentException(
          "\"%s\" has to be %s".formatted(name, type == Long.class ? "an integer" : words(type)));
    }
    return type.cast(members.remove(name));
  }

  private static String words(Class<?> type) {
    return type == Boolean.class ? "true or false" : type == String.class ? "a string" : "an array";
  }

  /** Takes a member out that may be absent. */
  <T> T take(String name, Class<T> type, T otherwise) {
    return has(name) ? take(name, type) : otherwise;
  }

  /** Takes an integer out that fits an int and is not negative. */
  int takeSmall(String name) {
    long value = take(name, Long.class);
    if (value < 0 || value > Integer.MAX_VALUE) {
      throw new IllegalArgumentException("\"%s\" is out of range".formatted(name));
    }
    return (int) value;
  }

  /** Refuses members that nobody has taken out. */
  void requireEmpty() {
    if (!members.isEmpty()) {
      throw new IllegalArgumentException(
          "\"%s\" does not belong here".formatted(members.keySet().iterator().next()));
    }
  }

  private Object value(int depth) {
    skipSpace();
    char first = at < text.length() ? text.charAt(at) : ' ';
    if (first == '"') {
      return string();
    }
    if (first == '[' && depth < DEEPEST) {
      return array(depth);
    }
    for (boolean value : new boolean[] {true, false}) {
      if (text.startsWith(String.valueOf(value), at)) {
        at += String.valueOf(value).length();
        return value;
      }
    }
    return integer();
  }

  private List<Object> array(int depth) {
    expect('[');
    List<Object> values = new ArrayList<>();
    if (isNext(']')) {
      return values;
    }
    do {
      values.add(value(depth + 1));
    } while (isNext(','));
    expect(']');
    return values;
  }

  private long integer() {
    int begin = at;
    while (at < text.length() && (Character.isDigit(text.charAt(at)) || text.charAt(at) == '-')) {
      at++;
    }
    try {
      return Long.parseLong(text, begin, at, 10);
    } catch (NumberFormatException noInteger) {
      at = begin;
      throw wrong("an integer");
    }
  }

  private String string() {
    expect('"');
    int end = text.indexOf('"', at);
    String value = end < 0 ? "\\" : text.substring(at, end);
    if (value.contains("\\")) {
      throw wrong("a string without escapes");
    }
    at = end + 1;
    return value;
  }

  private boolean isNext(char wanted) {
    skipSpace();
    boolean isNext = at < text.length() && text.charAt(at) == wanted;
    if (isNext) {
      at++;
    }
    return isNext;
  }

  private void expect(char wanted) {
    if (!isNext(wanted)) {
      throw wrong("'" + wanted + "'");
    }
  }

  private void skipSpace() {
    while (at < text.length() && Character.isWhitespace(text.charAt(at))) {
      at++;
    }
  }

  private IllegalArgumentException wrong(String expected) {
    return new IllegalArgumentException("expected %s at column %d".formatted(expected, at + 1));
  }
}
