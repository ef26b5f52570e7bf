package nbd.check;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * A file of the events of a history, in the order of time: a JSON object on each line. The manual
 * page describes it, in the section CHECK.
 */
public final class HistoryFile {
  private static final Map<String, Step.Kind> KINDS =
      Stream.of(Step.Kind.values())
          .filter(kind -> kind.hasRange() || kind == Step.Kind.FLUSH)
          .collect(Collectors.toMap(HistoryFile::name, Function.identity()));

  private HistoryFile() {}

  private static String name(Step.Kind kind) {
    return kind.name().toLowerCase(Locale.ROOT);
  }

  /** Returns an event as a line. */
  public static String toLine(Event event) {
    return switch (event) {
      case Event.Start start ->
          "{\"sectors\":%d,\"contents\":\"%s\"}"
              .formatted(start.sectors(), start.isZero() ? "zero" : "unknown");
      case Event.Begin begin -> {
        String range =
            begin.kind().hasRange()
                ? ",\"sector\":" + begin.sector() + ",\"sectors\":" + begin.sectors()
                : "";
        yield "{\"begin\":"
            + begin.operation()
            + ",\"connection\":"
            + begin.connection()
            + ",\"kind\":\""
            + name(begin.kind())
            + '"'
            + range
            + (begin.kind() == Step.Kind.WRITE ? ",\"value\":" + begin.value() : "")
            + (begin.fua() ? ",\"fua\":true}" : "}");
      }
      case Event.End end ->
          "{\"end\":"
              + end.operation()
              + ",\"ok\":"
              + end.succeeded()
              + (end.contents().isEmpty() ? "}" : ",\"values\":" + values(end.contents()) + '}');
      case Event.Close close ->
          "{\"close\":" + close.connection() + (close.cut() ? ",\"cut\":true}" : "}");
      case Event.Crash crash -> "{\"crash\":true}";
    };
  }

  private static String values(List<List<Long>> contents) {
    return contents.stream()
        .map(
            values ->
                values.size() == 1
                    ? values.getFirst().toString()
                    : values.stream()
                        .map(Object::toString)
                        .collect(Collectors.joining(",", "[", "]")))
        .collect(Collectors.joining(",", "[", "]"));
  }

  /**
   * Reads a file.
   *
   * @param judge is told every event; an IllegalArgumentException of its says that it cannot follow
   *     the ones before
   * @throws IOException if the file cannot be read, or a line is wrong; the message names it
   */
  public static void read(Path path, Consumer<Event> judge) throws IOException {
    try (BufferedReader lines = Files.newBufferedReader(path)) {
      long number = 0;
      for (String line = next(lines, path); line != null; line = next(lines, path)) {
        number++;
        try {
          judge.accept(event(new JsonLine(line)));
        } catch (IllegalArgumentException wrong) {
          throw new IOException("%s:%d: %s".formatted(path, number, wrong.getMessage()), wrong);
        }
      }
      if (number == 0) {
        throw new IOException(path + ": is empty");
      }
    }
  }

  private static @Nullable String next(BufferedReader lines, Path path) throws IOException {
    try {
      return lines.readLine();
    } catch (CharacterCodingException binary) {
      throw new IOException(path + ": is not text", binary);
    } catch (IOException unreadable) {
      throw new IOException(path + ": " + unreadable.getMessage(), unreadable);
    }
  }

  private static Event event(JsonLine line) {
    Event event;
    if (line.has("begin")) {
      event = begin(line);
    } else if (line.has("end")) {
      event =
          new Event.End(
              line.take("end", Long.class),
              line.take("ok", Boolean.class),
              contents(line.take("values", List.class, List.of())));
    } else if (line.has("close")) {
      event = new Event.Close(line.takeSmall("close"), line.take("cut", Boolean.class, false));
    } else if (line.has("crash")) {
      require(line.take("crash", Boolean.class), "\"crash\" has to be true");
      event = new Event.Crash();
    } else {
      int sectors = line.takeSmall("sectors");
      String contents = line.take("contents", String.class);
      require(sectors > 0, "\"sectors\" has to be positive");
      require(
          contents.equals("zero") || contents.equals("unknown"),
          "\"contents\" has to be \"zero\" or \"unknown\"");
      event = new Event.Start(sectors, contents.equals("zero"));
    }
    line.requireEmpty();
    return event;
  }

  private static Event begin(JsonLine line) {
    String name = line.take("kind", String.class);
    Step.Kind kind = KINDS.get(name);
    if (kind == null) {
      throw new IllegalArgumentException("\"%s\" is no kind of operation".formatted(name));
    }
    return new Event.Begin(
        line.take("begin", Long.class),
        line.takeSmall("connection"),
        kind,
        kind.hasRange() ? line.takeSmall("sector") : 0,
        kind.hasRange() ? line.takeSmall("sectors") : 0,
        kind.changes() && line.take("fua", Boolean.class, false),
        kind == Step.Kind.WRITE ? line.take("value", Long.class) : 0);
  }

  private static List<List<Long>> contents(List<?> sectors) {
    return sectors.stream()
        .map(sector -> sector instanceof List<?> mixture ? mixture : List.of(sector))
        .map(HistoryFile::integers)
        .toList();
  }

  private static List<Long> integers(List<?> values) {
    require(
        !values.isEmpty() && values.stream().allMatch(Long.class::isInstance),
        "\"values\" has to be integers, or arrays of them");
    return values.stream().map(Long.class::cast).toList();
  }

  private static void require(boolean condition, String message) {
    if (!condition) {
      throw new IllegalArgumentException(message);
    }
  }
}
