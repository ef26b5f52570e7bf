package nbd.check;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;

/** A decision whether a violation comes from a crash, or might have happened without one. */
final class Durability {
  private Durability() {}

  /**
   * Says whether a crash has undone what was durable: everything that the read missed was written
   * before the crash, and no earlier read since then has found the sector right.
   *
   * @param history the events up to the violation, oldest first; earlier ones may be missing
   */
  static boolean isBroken(Violation violation, List<Event> history) {
    boolean crashed = false;
    boolean wasRight = false;
    Set<Long> begun = new HashSet<>();
    Set<Long> reading = new HashSet<>();
    for (Event event : history) {
      switch (event) {
        case Event.Crash _ -> {
          crashed = true;
          wasRight = false;
          begun.clear();
          reading.clear();
        }
        case Event.Begin begin when begin.operation() == violation.operation() -> {
          return crashed && !wasRight && changes(violation).noneMatch(begun::contains);
        }
        case Event.Begin begin -> {
          begun.add(begin.operation());
          if (begin.kind() == Step.Kind.READ && begin.covers(violation.sector())) {
            reading.add(begin.operation());
          }
        }
        case Event.End end -> wasRight |= end.succeeded() && reading.contains(end.operation());
        case Event.Start _, Event.Close _ -> {}
      }
    }
    return false;
  }

  private static Stream<Long> changes(Violation violation) {
    return violation.requests().stream()
        .filter(request -> request.kind().changes())
        .map(Event.Begin::operation);
  }
}
