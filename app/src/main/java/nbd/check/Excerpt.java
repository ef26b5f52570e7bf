package nbd.check;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import nbd.check.Step.Kind;

/**
 * The part of a history that shows a violation: the requests by which the judge has found it, and
 * as many of those before them as are wanted.
 */
final class Excerpt {
  private final Violation violation;
  private final boolean isOfCrash;

  /** The history up to the read that shows the violation. */
  private final List<Part> parts = new ArrayList<>();

  /**
   * A step of the history.
   *
   * @param begin its place among the events
   * @param end the place of the answer
   * @param isNeeded whether the violation cannot be told without it
   */
  private record Part(Event event, int begin, int end, boolean isNeeded) {}

  /** The answers by the requests' numbers. */
  private final Map<Long, Event.End> answers = new HashMap<>();

  /** Takes the last events before a violation; older requests of the violation may be missing. */
  Excerpt(List<Event> history, Violation violation) {
    this.violation = violation;
    this.isOfCrash = Durability.isBroken(violation, history);
    Map<Long, Integer> ends = new HashMap<>();
    Set<Long> begun = new HashSet<>();
    for (int i = 0; i < history.size(); i++) {
      if (history.get(i) instanceof Event.End end) {
        ends.put(end.operation(), i);
        answers.put(end.operation(), end);
      } else if (history.get(i) instanceof Event.Begin begin) {
        begun.add(begin.operation());
      }
    }
    for (Event.Begin older : violation.requests()) {
      if (!begun.contains(older.operation())) {
        parts.add(new Part(older, -1, -1, true));
      }
    }
    int last = ends.getOrDefault(violation.operation(), history.size());
    for (int i = 0; i < last; i++) {
      add(history.get(i), i, ends);
    }
  }

  private void add(Event event, int index, Map<Long, Integer> ends) {
    switch (event) {
      case Event.Begin begin -> {
        int end = ends.getOrDefault(begin.operation(), Integer.MAX_VALUE);
        parts.add(new Part(begin, index, end, isNeeded(begin)));
      }
      case Event.Close close ->
          parts.add(new Part(close, index, index, isNeeded(close.connection())));
      case Event.Crash crash -> {
        if (parts.stream().anyMatch(Part::isNeeded)) {
          parts.add(new Part(crash, index, index, true));
        } else {
          parts.clear();
        }
      }
      default -> {}
    }
  }

  private boolean isNeeded(Event.Begin request) {
    return violation.requests().stream().anyMatch(each -> each.operation() == request.operation());
  }

  /** Says whether a connection's end is part of the violation. */
  private boolean isNeeded(int connection) {
    return violation.kind() == Violation.Kind.LOST_WRITE
        && parts.stream()
            .filter(Part::isNeeded)
            .map(Part::event)
            .anyMatch(
                event -> event instanceof Event.Begin begin && begin.connection() == connection);
  }

  /**
   * Returns a script of the requests that show the violation, and of others.
   *
   * @param isWanted tells the other requests; closes are wanted always
   * @param most limit on the number of other steps, the last of which are taken
   */
  Script script(Predicate<Event.Begin> isWanted, int most) {
    Deque<Part> chosen = new ArrayDeque<>();
    int others = 0;
    for (Part part : parts.reversed()) {
      boolean isOther =
          others < most && (!(part.event instanceof Event.Begin begin) || isWanted.test(begin));
      if (part.isNeeded || isOther) {
        chosen.addFirst(part);
        others += part.isNeeded ? 0 : 1;
      }
    }
    return script(withoutIdleCloses(chosen)).renumbered();
  }

  /** Leaves out the ends of connections that have made no request. */
  private static List<Part> withoutIdleCloses(Iterable<Part> chosen) {
    List<Part> kept = new ArrayList<>();
    Set<Integer> used = new HashSet<>();
    for (Part part : chosen) {
      switch (part.event) {
        case Event.Begin begin -> used.add(begin.connection());
        case Event.Crash _ -> used.clear();
        default -> {}
      }
      if (!(part.event instanceof Event.Close close) || used.remove(close.connection())) {
        kept.add(part);
      }
    }
    return kept;
  }

  private static Script script(List<Part> parts) {
    List<Step> steps = new ArrayList<>();
    Numbers numbers = new Numbers();
    for (int i = 0; i < parts.size(); i++) {
      Part part = parts.get(i);
      int next = i + 1;
      while (next < parts.size() && parts.get(next).begin < part.end) {
        next++;
      }
      steps.add(step(part.event, numbers).overlapping(next - i - 1));
    }
    return new Script(steps);
  }

  private static Step step(Event event, Numbers numbers) {
    return switch (event) {
      case Event.Begin begin ->
          new Step(
              numbers.of(begin.connection()),
              begin.kind(),
              begin.kind().hasRange() ? begin.sector() : 0,
              begin.sectors(),
              begin.fua(),
              0);
      case Event.Close close ->
          Step.of(numbers.free(close.connection()), close.cut() ? Kind.CUT : Kind.CLOSE);
      case Event.Crash _ -> {
        numbers.freeAll();
        yield Step.of(0, Kind.RESTART);
      }
      default -> throw new IllegalArgumentException("not a step: " + event);
    };
  }

  /**
   * The script's number of each connection of the history that is open. A step that closes one
   * connects the next one at once.
   */
  private static final class Numbers {
    private final Map<Integer, Integer> used = new HashMap<>();
    private final Deque<Integer> free = new ArrayDeque<>();
    private int count;

    int of(int connection) {
      return used.computeIfAbsent(connection, key -> free.isEmpty() ? count++ : free.remove());
    }

    int free(int connection) {
      int number = of(connection);
      used.remove(connection);
      free.add(number);
      return number;
    }

    void freeAll() {
      used.values().stream().sorted().forEach(free::add);
      used.clear();
    }
  }

  /** Returns the requests that show the violation, as the server has answered them. */
  Replay seen(Target target) {
    List<Part> needed = withoutIdleCloses(parts.stream().filter(Part::isNeeded).toList());
    Script script = script(needed);
    int first =
        script.steps().stream()
            .filter(step -> step.kind().hasRange())
            .mapToInt(Step::sector)
            .min()
            .orElse(0);
    return new Replay(
        script.mapping(
            step ->
                step.kind().hasRange()
                    ? step.onSectors(step.sector() - first, step.sectors())
                    : step),
        target.offsetOf(first),
        target.unit(),
        needed.stream().map(part -> answer(part, needed)).toList(),
        List.of(
            new Replay.Found(
                needed.size() - 1,
                violation.sector() - first,
                violation,
                described(violation.sector(), violation.allowed(), " or ", needed, "newer data"),
                isOfCrash)));
  }

  private String answer(Part part, List<Part> needed) {
    if (!(part.event instanceof Event.Begin begin)) {
      return "ok";
    }
    Event.End end = answers.get(begin.operation());
    if (end == null) {
      // The answers of requests that began so long ago are not at hand; they were answered well.
      return part.begin < 0 ? "ok" : "no answer";
    }
    if (!end.succeeded()) {
      return "error";
    }
    if (begin.kind() != Kind.READ) {
      return "ok";
    }
    List<String> sectors = new ArrayList<>();
    for (List<Long> values : end.contents()) {
      int sector = begin.sector() + sectors.size();
      boolean isWrong = begin.operation() == violation.operation() && sector == violation.sector();
      String other =
          isWrong && violation.kind() != Violation.Kind.FOREIGN_DATA ? "older data" : "other data";
      sectors.add(described(sector, values, " mixed with ", needed, other));
    }
    return String.join(", ", sectors);
  }

  /**
   * Describes values by the steps that wrote them.
   *
   * @param other the words for those that no step wrote
   */
  private static String described(
      int sector, List<Long> values, String separator, List<Part> needed, String other) {
    return values.stream()
        .map(value -> writer(sector, value, needed).orElse(value == 0 ? "zeroes" : other))
        .distinct()
        .collect(Collectors.joining(separator));
  }

  private static Optional<String> writer(int sector, long value, List<Part> needed) {
    return IntStream.range(0, needed.size())
        .filter(
            i ->
                needed.get(i).event instanceof Event.Begin begin
                    && begin.kind() == Kind.WRITE
                    && begin.value() + sector - begin.sector() == value)
        .mapToObj(i -> "step " + (i + 1))
        .findFirst();
  }
}
