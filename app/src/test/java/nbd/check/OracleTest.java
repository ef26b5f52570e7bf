package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SplittableRandom;
import nbd.check.Violation.Level;
import org.junit.jupiter.api.Test;

/**
 * {@link HistoryChecker} and a search over all orders of the writes, on short random histories. The
 * property {@code nbd.oracle.histories} says how many, {@code nbd.oracle.seed} repeats the first of
 * a run that failed.
 */
class OracleTest {
  private static final long HISTORIES = Long.getLong("nbd.oracle.histories", 10_000);
  private static final long SEED = Long.getLong("nbd.oracle.seed", System.nanoTime());
  private static final int OPERATIONS = 8;
  private static final int CONNECTIONS = 3;
  private static final int SECTORS = 2;

  @Test
  void theCheckerFindsExactlyWhatNoOrderExplains() {
    int broken = 0;
    for (long seed = SEED; seed < SEED + HISTORIES; seed++) {
      List<Event> history = new Generator(seed, false).history();
      Set<Level> possible = searched(history);
      for (int forgetFrom : new int[] {1, Sector.LIMITS.forgetFrom()}) {
        assertThat(judged(history, new Sector.Limits(forgetFrom, Long.SIZE)))
            .as("-Dnbd.oracle.seed=%d, forgets from %d: %s", seed, forgetFrom, history)
            .isEqualTo(possible);
      }
      broken += possible.size();
    }
    assertThat(broken).isBetween((int) HISTORIES / 5, (int) HISTORIES * 9 / 5);
  }

  @Test
  void noHistoryIsAccusedThatHasSeveralExplanations() {
    assertThat(missed(true, Sector.LIMITS)).isLessThan(HISTORIES / 400);
  }

  @Test
  void noHistoryIsAccusedWhenWritesAreMerged() {
    for (int slots = 1; slots < 4; slots++) {
      assertThat(missed(false, new Sector.Limits(1, slots))).isLessThan(HISTORIES / 4);
    }
  }

  /** Returns how many violations the checker misses; it has to find no other. */
  private static long missed(boolean zeroes, Sector.Limits limits) {
    long missed = 0;
    for (long seed = SEED; seed < SEED + HISTORIES / 4; seed++) {
      List<Event> history = new Generator(seed, zeroes).history();
      Set<Level> possible = searched(history);
      Set<Level> found = judged(history, limits);
      assertThat(possible)
          .as("-Dnbd.oracle.seed=%d, %s: %s", seed, limits, history)
          .containsAll(found);
      missed += possible.size() - found.size();
    }
    return missed;
  }

  private static Set<Level> judged(List<Event> history, Sector.Limits limits) {
    Set<Level> found = EnumSet.noneOf(Level.class);
    EventJudge judge = new EventJudge(limits);
    judge.accept(new Event.Start(SECTORS, true));
    for (Event event : history) {
      judge.accept(event).ifPresent(violation -> found.add(violation.level()));
    }
    if (found.contains(Level.FLUSH)) {
      found.add(Level.COHERENT);
    }
    return found;
  }

  private static Set<Level> searched(List<Event> history) {
    Set<Level> found = EnumSet.noneOf(Level.class);
    for (Level level : Level.values()) {
      for (int sector = 0; sector < SECTORS; sector++) {
        if (!new Search(history, level, sector).finds()) {
          found.add(level);
        }
      }
    }
    return found;
  }

  /** A maker of one random history. */
  private static final class Generator {
    private final SplittableRandom random;
    private final boolean zeroes;
    private final List<Event> history = new ArrayList<>();
    private final List<Event.Begin> inFlight = new ArrayList<>();
    private final List<List<Long>> written = new ArrayList<>();
    private int begun;

    Generator(long seed, boolean zeroes) {
      this.random = new SplittableRandom(seed);
      this.zeroes = zeroes;
      for (int i = 0; i < SECTORS; i++) {
        written.add(new ArrayList<>(List.of(0L)));
      }
    }

    List<Event> history() {
      while (begun < OPERATIONS || !inFlight.isEmpty()) {
        int choice = random.nextInt(40);
        if (choice == 0) {
          history.add(new Event.Close(random.nextInt(CONNECTIONS), random.nextBoolean()));
        } else if (choice == 1) {
          crash();
        } else if (begun < OPERATIONS && random.nextInt(inFlight.size() + 1) == 0) {
          begin();
        } else if (!inFlight.isEmpty()) {
          end(inFlight.remove(random.nextInt(inFlight.size())), random.nextInt(10) != 0);
        }
      }
      return history;
    }

    private void crash() {
      boolean failFirst = random.nextBoolean();
      if (!failFirst) {
        history.add(new Event.Crash());
      }
      inFlight.forEach(request -> end(request, false));
      inFlight.clear();
      if (failFirst) {
        history.add(new Event.Crash());
      }
    }

    private void begin() {
      begun++;
      Step.Kind kind = kind();
      int sectors = kind == Step.Kind.FLUSH ? 0 : random.nextInt(1, SECTORS + 1);
      int sector = sectors == 0 ? 0 : random.nextInt(SECTORS - sectors + 1);
      long value = kind == Step.Kind.WRITE ? 10L * begun : 0;
      boolean fua = kind.changes() && random.nextInt(4) == 0;
      Event.Begin event =
          new Event.Begin(begun, random.nextInt(CONNECTIONS), kind, sector, sectors, fua, value);
      for (int i = 0; kind == Step.Kind.WRITE && i < sectors; i++) {
        written.get(sector + i).add(value + i);
      }
      inFlight.add(event);
      history.add(event);
    }

    private Step.Kind kind() {
      return switch (random.nextInt(10)) {
        case 0, 1, 2, 3 -> Step.Kind.READ;
        case 4, 5 -> Step.Kind.FLUSH;
        case 6 -> zeroes ? Step.Kind.ZERO : Step.Kind.WRITE;
        case 7 -> zeroes && random.nextBoolean() ? Step.Kind.TRIM : Step.Kind.WRITE;
        default -> Step.Kind.WRITE;
      };
    }

    private void end(Event.Begin request, boolean succeeded) {
      List<List<Long>> contents = new ArrayList<>();
      if (succeeded && request.kind() == Step.Kind.READ) {
        for (int i = 0; i < request.sectors(); i++) {
          List<Long> values = written.get(request.sector() + i);
          // The newest are the likeliest.
          int from = random.nextInt(values.size());
          contents.add(List.of(values.get(random.nextInt(from, values.size()))));
        }
      }
      history.add(new Event.End(request.operation(), succeeded, contents));
    }
  }

  /** A search for an order of one sector's writes that explains all reads. */
  private static final class Search {
    private static final int NEVER = Integer.MAX_VALUE;

    private final Level level;
    private final int sector;
    private final List<Operation> operations = new ArrayList<>();
    private final List<Operation> writes = new ArrayList<>();

    private static final class Operation {
      Event.Begin event;
      int session;
      int began;
      int ended = NEVER;

      /** The time of the crash at which it was not durable. */
      int lost = NEVER;

      List<Long> returned = List.of();

      Operation(Event.Begin event, int session, int began) {
        this.event = event;
        this.session = session;
        this.began = began;
      }

      boolean isIn(int sector) {
        return event.sector() <= sector && sector < event.sector() + event.sectors();
      }

      boolean mayLeave(long value, int sector) {
        return switch (event.kind()) {
          case WRITE -> value == event.value() + sector - event.sector();
          case ZERO -> value == 0;
          default -> true;
        };
      }
    }

    Search(List<Event> history, Level level, int sector) {
      this.level = level;
      this.sector = sector;
      Operation contents =
          new Operation(
              new Event.Begin(0, -1, Step.Kind.ZERO, 0, SECTORS, true, 0), -1, Integer.MIN_VALUE);
      contents.ended = Integer.MIN_VALUE;
      operations.add(contents);
      Map<Integer, Integer> sessions = new HashMap<>();
      for (int now = 0; now < history.size(); now++) {
        take(history.get(now), now, sessions);
      }
      for (Operation operation : operations) {
        if (operation.event.kind().changes() && operation.isIn(sector)) {
          writes.add(operation);
        }
      }
    }

    private void take(Event event, int now, Map<Integer, Integer> sessions) {
      switch (event) {
        case Event.Start start -> throw new AssertionError(start);
        case Event.Begin begin ->
            operations.add(
                new Operation(
                    begin, sessions.computeIfAbsent(begin.connection(), key -> now), now));
        case Event.End end -> {
          Operation operation = operations.get((int) end.operation());
          operation.ended = end.succeeded() ? now : NEVER;
          operation.returned =
              end.contents().isEmpty() || !operation.isIn(sector)
                  ? List.of()
                  : end.contents().get(sector - operation.event.sector());
        }
        case Event.Close close -> sessions.remove(close.connection());
        case Event.Crash crash -> {
          sessions.clear();
          for (Operation operation : operations) {
            if (operation.lost == NEVER && !isDurable(operation, now)) {
              operation.lost = now;
            }
          }
        }
      }
    }

    private boolean isFlushed(Operation write, int before) {
      return operations.stream()
          .anyMatch(
              flush ->
                  flush.event.kind() == Step.Kind.FLUSH
                      && flush.began > write.ended
                      && flush.ended < before);
    }

    private boolean isDurable(Operation write, int now) {
      return write.ended < now && (write.event.fua() || isFlushed(write, now));
    }

    private boolean knows(Operation later, Operation write) {
      if (write.lost < later.began) {
        return later.event.kind().changes();
      }
      boolean needsNoFlush =
          level == Level.COHERENT || write.event.fua() || write.session == later.session;
      return (write.ended < later.began && needsNoFlush) || isFlushed(write, later.began);
    }

    boolean finds() {
      return finds(new ArrayList<>());
    }

    private boolean finds(List<Operation> order) {
      if (order.size() == writes.size()) {
        return operations.stream()
            .filter(read -> !read.returned.isEmpty())
            .allMatch(read -> explains(order, read));
      }
      for (Operation write : writes) {
        if (!order.contains(write) && order.stream().noneMatch(earlier -> knows(earlier, write))) {
          order.add(write);
          if (finds(order)) {
            return true;
          }
          order.removeLast();
        }
      }
      return false;
    }

    private boolean explains(List<Operation> order, Operation read) {
      for (int i = order.size() - 1; i >= 0; i--) {
        Operation write = order.get(i);
        if (write.began < read.ended && write.mayLeave(read.returned.getFirst(), sector)) {
          return true;
        }
        if (knows(read, write)) {
          return false;
        }
      }
      return false;
    }
  }
}
