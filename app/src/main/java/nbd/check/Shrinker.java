package nbd.check;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import nbd.check.Violation.Level;

/**
 * A search for a small script that a server answers wrongly. It begins with the requests by which
 * the judge has found a violation, and with more of the history around them until a replay shows it
 * again. Then it keeps each simpler script that shows it, too: delta debugging (Zeller and
 * Hildebrandt, "Simplifying and isolating failure-inducing input", 2002), then fewer connections
 * and sectors, and less that overlaps.
 *
 * <p>A server's interleaving cannot be repeated. So each candidate has several runs, and one that
 * shows the fault is enough to keep it; in the end the smallest that shows it again is the result.
 * If there is none, the result is the part of the history by which the judge has found the
 * violation.
 */
public final class Shrinker {
  /** The longest script that is a result. */
  private static final int MOST_STEPS = 10;

  /** The numbers of steps that are added to the requests of the violation, until it shows again. */
  private static final int[] FEW_OTHERS = {0, 4, 12, 30};

  private static final int[] MANY_OTHERS = {100, 300};
  private static final int SOME_VARIATIONS = 200;
  private static final Tries FIRST = new Tries(8, 2);
  private static final Tries FEWEST = new Tries(2, 1);
  private static final Tries MOST = new Tries(12, 1);

  /**
   * In every other run, so many copies of a script run at a time: some faults show more often then,
   * others less.
   */
  private static final int COPIES = 8;

  /** The replays that are counted in the end. */
  private static final Tries LAST = new Tries(20, 3);

  /** The replays that are counted as long as none shows the fault. */
  private static final Tries MOST_LAST = new Tries(200, 3);

  /**
   * A result that shows the fault in a smaller part of the replays may give way to a longer one.
   */
  private static final double OFTEN = 0.1;

  private static final Duration LONGEST_COUNT = Duration.ofSeconds(3);
  private static final Duration LONGEST_COUNT_OF_RESTARTS = Duration.ofSeconds(15);

  private final ScriptRunner runner;
  private final Connections fresh;
  private final Connections kept;
  private final Level level;
  private final BooleanSupplier goesOn;
  private final long end;
  private final Set<Script> tried = new HashSet<>();

  /** The scripts that have shown the fault, the simplest last. */
  private final List<Counterexample> shown = new ArrayList<>();

  /** An estimate of the runs that a candidate needs to show the fault. */
  private int needed = 1;

  private boolean isUnreachable;

  /** The number of runs of a script, and of one that restarts the server. */
  private record Tries(int usual, int restarting) {
    int of(Script script) {
      return script.restarts() ? restarting : usual;
    }
  }

  /**
   * Begins a search.
   *
   * @param level of the promise that the fault breaks
   * @param most limit on its time; the runs that count how often the result fails come afterwards
   * @param goesOn asked before each run
   */
  public Shrinker(ScriptRunner runner, Level level, Duration most, BooleanSupplier goesOn) {
    this.runner = runner;
    this.fresh = runner.connections(false);
    this.kept = runner.connections(true);
    this.level = level;
    this.goesOn = goesOn;
    this.end = System.nanoTime() + most.toNanos();
  }

  /**
   * Searches for the smallest part of a history that shows a violation again.
   *
   * @param history of which the last events matter
   */
  public Counterexample shrink(List<Event> history, Violation violation) {
    Excerpt excerpt = new Excerpt(history, violation);
    Variations variations = new Variations(excerpt.script(request -> false, 0));
    boolean _ =
        Stream.of(
                excerpts(excerpt, violation.sector(), FEW_OTHERS),
                variations.stream().limit(SOME_VARIATIONS),
                excerpts(excerpt, violation.sector(), MANY_OTHERS),
                variations.stream())
            .flatMap(scripts -> scripts)
            .takeWhile(script -> !isOver())
            .anyMatch(script -> keeps(script, FIRST));
    return smallest(Counterexample.seen(excerpt.seen(runner.target()), level));
  }

  private static Stream<Script> excerpts(Excerpt excerpt, int sector, int[] others) {
    return IntStream.of(others)
        .boxed()
        .flatMap(
            most -> {
              Script ofSector = excerpt.script(request -> touches(request, sector), most);
              return Stream.of(
                  Simplifications.onOneSector(ofSector).renumbered(),
                  ofSector,
                  excerpt.script(request -> true, most));
            });
  }

  private static boolean touches(Event.Begin request, int sector) {
    return !request.kind().hasRange() || request.covers(sector);
  }

  /** Searches for a smaller script than one that has shown the fault. */
  public Counterexample shrink(Replay replay) {
    Counterexample seen = Counterexample.seen(replay, level);
    tried.add(replay.script());
    shown.add(seen);
    return smallest(seen);
  }

  /** Returns the smallest script found, or the steps that were seen if none shows the fault. */
  private Counterexample smallest(Counterexample seen) {
    try (kept) {
      while (!shown.isEmpty() && simplerThan(shown.getLast()).anyMatch(this::keeps)) {}
    }
    boolean restarts = shown.stream().anyMatch(each -> each.replay().script().restarts());
    Duration most = restarts ? LONGEST_COUNT_OF_RESTARTS : LONGEST_COUNT;
    long until = System.nanoTime() + most.toNanos();
    Counterexample best = seen;
    for (Counterexample candidate : shown.reversed()) {
      if (candidate.steps().size() <= MOST_STEPS && best.often() < OFTEN) {
        Counterexample counted = count(candidate, until);
        best = counted.often() > best.often() ? counted : best;
      }
    }
    return best;
  }

  private static Stream<Script> simplerThan(Counterexample shown) {
    Script ended = shown.replay().script().keeping(i -> i <= shown.found().step()).renumbered();
    return Stream.concat(Stream.of(ended), Simplifications.of(ended));
  }

  private boolean keeps(Script candidate) {
    int runs = Math.clamp(2L * needed, FEWEST.of(candidate), MOST.of(candidate));
    return keeps(candidate, new Tries(runs, runs));
  }

  /** Keeps a candidate if one of its runs shows the fault. */
  private boolean keeps(Script candidate, Tries runs) {
    if (isOver() || !tried.add(candidate)) {
      return false;
    }
    for (int run = 1; run <= runs.of(candidate) && !isOver(); run++) {
      Optional<Replay> replay =
          run % 2 == 0 || candidate.restarts()
              ? show(candidate, COPIES, kept)
              : show(candidate, 1, run == 1 ? fresh : kept);
      if (replay.isPresent()) {
        shown.add(Counterexample.seen(replay.get(), level));
        needed = Math.max(run, needed / 2);
        return true;
      }
    }
    return false;
  }

  /** Runs copies of a script, and returns one that shows the fault. */
  private Optional<Replay> show(Script script, int copies, Connections connections) {
    int most = Math.min(copies, runner.mostScripts(script.sectors()));
    try {
      return runner.run(Collections.nCopies(most, script), connections).stream()
          .filter(replay -> replay.first(level).isPresent())
          .findFirst();
    } catch (IOException unreachable) {
      isUnreachable = true;
      return Optional.empty();
    }
  }

  private boolean isOver() {
    return isUnreachable || System.nanoTime() - end > 0 || !goesOn.getAsBoolean();
  }

  /** Counts how often a script shows the fault again; by one replay if the caller ends it. */
  private Counterexample count(Counterexample shown, long until) {
    Script script = shown.replay().script();
    int broken = 0;
    int replays = 0;
    while (replays < (broken > 0 ? LAST : MOST_LAST).of(script)
        && System.nanoTime() - until < 0
        && !isUnreachable
        && (replays == 0 || goesOn.getAsBoolean())) {
      replays++;
      broken += show(script, 1, fresh).isPresent() ? 1 : 0;
    }
    return new Counterexample(shown.replay(), shown.found(), broken, replays);
  }
}
