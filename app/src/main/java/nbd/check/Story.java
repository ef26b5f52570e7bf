package nbd.check;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Queue;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.function.LongPredicate;
import java.util.stream.Collectors;
import nbd.check.HistoryChecker.Read;
import nbd.check.HistoryChecker.Write;
import nbd.check.Sector.Settled;
import nbd.check.Violation.Kind;
import nbd.check.Violation.Level;

/**
 * The explanation of a violation: how the writes that the read knew follow from one another, from
 * the one that it returned to one that it should not have missed.
 */
final class Story {
  private final Sector sector;
  private final Read read;
  private final Level level;
  private final long crashed;
  private final LongPredicate wasWritten;
  private final long known;

  /** The requests that show the violation, by their numbers. */
  private final SortedMap<Long, Event.Begin> requests = new TreeMap<>();

  /**
   * Explains what a read has returned.
   *
   * @param crashed when the server did so last, 0 if never
   * @param wasWritten whether a value may have been written to the sector at some time
   */
  Story(Sector sector, Read read, Level level, long crashed, LongPredicate wasWritten) {
    this.sector = sector;
    this.read = read;
    this.level = level;
    this.crashed = crashed;
    this.wasWritten = wasWritten;
    this.known = sector.slotsKnownTo(read, level);
  }

  /** Describes the violation by a read that returned these values. */
  Violation tell(List<Long> values) {
    List<Long> wrong =
        values.stream().filter(value -> !sector.allows(value, known, level)).toList();
    long value = wrong.stream().filter(this::isForeign).findFirst().orElse(wrong.getFirst());
    List<Write> path = isForeign(value) ? List.of() : path(sector.slotsOf(value));
    Kind kind = kind(value, values.size() > 1, path);
    List<String> history = new ArrayList<>();
    path.forEach(this::note);
    values.stream()
        .map(sector::slotsOf)
        .filter(slots -> Long.bitCount(slots) == 1)
        .forEach(slots -> note(write(slots)));
    for (int i = 0; i < path.size(); i++) {
      if (i > 0) {
        tellStep(path.get(i - 1), path.get(i), history);
      } else {
        history.add(answered(path.getFirst()));
      }
    }
    if (!path.isEmpty()) {
      tellFlush(path.getLast(), read, history);
    }
    note(read);
    history.add(
        "%s returned %s from sector %d: %s"
            .formatted(
                read.describe(),
                values.stream().map(this::describe).collect(Collectors.joining(" and ")),
                sector.number(),
                kind));
    return new Violation(
        level,
        kind,
        sector.number(),
        read.event.connection(),
        read.event.operation(),
        values,
        List.copyOf(sector.allowed(known, level)),
        history,
        List.copyOf(requests.values()));
  }

  private void note(Request request) {
    note(request.event);
  }

  private void note(Event.Begin request) {
    if (request.operation() > 0) {
      requests.put(request.operation(), request);
    }
  }

  private boolean isForeign(long value) {
    return value != 0 && sector.slotsOf(value) == 0 && !wasWritten.test(value);
  }

  private Kind kind(long value, boolean isMixture, List<Write> path) {
    if (isForeign(value)) {
      return Kind.FOREIGN_DATA;
    }
    if (isMixture) {
      return Kind.SHORN_WRITE;
    }
    for (int i = 1; i < path.size(); i++) {
      if (!path.get(i).knows(path.get(i - 1), level)) {
        return Kind.UNSERIALIZABLE_WRITES;
      }
    }
    long newer = newerThan(sector.slotsOf(value));
    if (newer == sector.slots(write -> isIn(newer, write) && write.ended < crashed)) {
      return (newer & sector.olderThan(newer, level)) != 0
          ? Kind.RESURRECTED_DATA
          : Kind.LOST_WRITE;
    }
    return newer == sector.slots(write -> isIn(newer, write) && write.session.closed < read.began)
        ? Kind.LOST_WRITE
        : Kind.STALE_READ;
  }

  private boolean isIn(long slots, Write write) {
    return (slots & sector.slots(other -> other == write)) != 0;
  }

  /** Returns the writes that the read knew and that are newer than what it returned. */
  private long newerThan(long returned) {
    long newer = 0;
    for (long rest = known; rest != 0; rest &= rest - 1) {
      long slot = Long.lowestOneBit(rest);
      if (returned == 0 || (sector.olderThan(slot, level) & returned) != 0) {
        newer |= slot;
      }
    }
    return newer;
  }

  /**
   * Returns the shortest chain of writes from one that was returned to one that the read knew; the
   * newest that it knew, if what was returned has been forgotten; nothing if that one has too.
   */
  private List<Write> path(long returned) {
    long newer = newerThan(returned);
    if (newer == 0) {
      return List.of();
    }
    if (returned == 0) {
      return List.of(write(newer & ~sector.olderThan(newer, level)));
    }
    Set<Write> reached = new HashSet<>();
    Queue<List<Write>> paths = new ArrayDeque<>();
    sector.slots(write -> isIn(returned, write) && reached.add(write) && paths.add(List.of(write)));
    while (!paths.isEmpty()) {
      List<Write> path = paths.remove();
      Write last = path.getLast();
      if (isIn(newer, last) && path.size() > 1) {
        return path;
      }
      sector.slots(
          next ->
              (next.knows(last, level) || seen(last, next).isPresent())
                  && reached.add(next)
                  && paths.add(with(path, next)));
    }
    return List.of(write(returned), write(newer));
  }

  private static List<Write> with(List<Write> path, Write next) {
    List<Write> longer = new ArrayList<>(path);
    longer.add(next);
    return longer;
  }

  private Write write(long slots) {
    return sector.write(Long.numberOfTrailingZeros(slots));
  }

  /** Returns the read that returned a write although it knew an earlier one. */
  private Optional<Read> seen(Write earlier, Write later) {
    return sector.settled(later).stream()
        .filter(settled -> settled.level() == level)
        .map(Settled::read)
        .filter(read -> read.knows(earlier, level))
        .findFirst();
  }

  private void tellStep(Write earlier, Write later, List<String> history) {
    if (later.knows(earlier, level)) {
      tellFlush(earlier, later, history);
      history.add(answered(later));
    } else {
      seen(earlier, later)
          .ifPresent(
              seen -> {
                note(seen);
                tellFlush(earlier, seen, history);
                history.add(
                    "%s returned the data of %s".formatted(seen.describe(), describe(later)));
              });
    }
  }

  private void tellFlush(Write earlier, Request later, List<String> history) {
    if (earlier.isLost) {
      history.add("the server crashed");
    } else if (!isContents(earlier) && !later.knowsWithoutFlush(earlier, level)) {
      Event.Begin flush = later.flushed.event();
      note(flush);
      history.add(
          "flush %d on connection %d succeeded".formatted(flush.operation(), flush.connection()));
    }
  }

  private static String answered(Write write) {
    return isContents(write) ? "the first contents were there" : write.describe() + " was answered";
  }

  private static boolean isContents(Write write) {
    return write.event.operation() == 0;
  }

  private static String describe(Write write) {
    return isContents(write) ? "the first contents" : write.describe();
  }

  private String describe(long value) {
    if (value == 0) {
      return "zeroes";
    }
    long writers = sector.slotsOf(value);
    return Long.bitCount(writers) == 1
        ? "the data of " + describe(write(writers))
        : "the value %#x".formatted(value);
  }
}
