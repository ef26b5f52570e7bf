package nbd.check;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import nbd.check.Step.Kind;
import nbd.check.Violation.Level;
import nbd.client.ExportInfo;
import nbd.protocol.TransmissionFlag;

/**
 * All scripts of up to some number of steps on two connections and two sectors, one step after the
 * other, the shortest first. Most faults of this kind show in short histories (Mohan et al.,
 * "Finding crash-consistency bugs with bounded black-box crash testing", OSDI 2018).
 *
 * <p>Scripts are left out that cannot show more than others:
 *
 * <ul>
 *   <li>those that are alike but for the numbers of connections or sectors: each is numbered by its
 *       first step;
 *   <li>those that do not end with a read of a sector that was changed: a fault shows in a read;
 *   <li>those with a sector that no step changes;
 *   <li>those that begin with a flush, or close a connection that has done nothing;
 *   <li>those that read a sector in the end that was only trimmed: it may have any data;
 *   <li>those that restart the server elsewhere than before the last step.
 * </ul>
 *
 * <p>Scripts of one pattern run at a time, each on sectors of its own: those that flush, use FUA,
 * disconnect and restart the server in the same steps and on the same connections. So no script
 * meets a flush that is not its own. The connections are flushed before the next pattern uses them.
 */
public final class Exhaustive {
  private static final int CONNECTIONS = 2;
  private static final int SECTORS = 2;

  /** Limit on the time for simplifying a script. */
  private static final Duration SHRINKING = Duration.ofSeconds(2);

  /** A step of a pattern that each script makes by itself. */
  private static final Step ON_RANGE = Step.of(0, Kind.READ, 0, 1);

  private static final int MOST_AT_A_TIME = 256;

  private final List<Step> operations;
  private final List<Step> patternSteps;
  private final int longest;
  private final AtomicLong scripts = new AtomicLong();
  private final AtomicLong restarts = new AtomicLong();
  private final Map<Level, Counterexample> found = new ConcurrentHashMap<>();

  /**
   * Takes the operations that an export offers.
   *
   * @param mayRestart whether a script may restart the server
   * @param longest the largest number of steps
   */
  public Exhaustive(ExportInfo export, boolean mayRestart, int longest) {
    this(operations(export, mayRestart), longest);
  }

  /** Takes operations, with any connection and sector. */
  Exhaustive(List<Step> operations, int longest) {
    this.operations = List.copyOf(operations);
    this.patternSteps =
        operations.stream()
            .flatMap(step -> Stream.of(step, step.onConnection(1)))
            .map(Exhaustive::patternOf)
            .distinct()
            .toList();
    this.longest = longest;
  }

  private static List<Step> operations(ExportInfo export, boolean mayRestart) {
    List<Step> changes = new ArrayList<>(List.of(Step.of(0, Kind.WRITE, 0, 1)));
    if (export.has(TransmissionFlag.SEND_WRITE_ZEROES)) {
      changes.add(Step.of(0, Kind.ZERO, 0, 1));
    }
    List<Step> all = new ArrayList<>(changes);
    if (export.has(TransmissionFlag.SEND_FUA)) {
      changes.forEach(change -> all.add(change.withFua()));
    }
    if (export.has(TransmissionFlag.SEND_TRIM)) {
      all.add(Step.of(0, Kind.TRIM, 0, 1));
    }
    if (export.has(TransmissionFlag.SEND_FLUSH)) {
      all.add(Step.of(0, Kind.FLUSH));
    }
    all.add(Step.of(0, Kind.READ, 0, 1));
    all.add(Step.of(0, Kind.CLOSE));
    if (mayRestart) {
      all.add(Step.of(0, Kind.RESTART));
    }
    return all;
  }

  /**
   * The result of running the scripts.
   *
   * @param scripts the number of scripts that were run
   * @param restarts of the server, each for many scripts
   * @param found a counterexample of each level that is broken; if flush consistency is, which
   *     coherence includes, the one of coherence may be missing
   */
  public record Result(long scripts, long restarts, Map<Level, Counterexample> found) {
    /** Keeps a copy. */
    public Result {
      found = Map.copyOf(found);
    }
  }

  /** Returns the result so far. Any thread may call. */
  public Result result() {
    return new Result(scripts.get(), restarts.get(), found);
  }

  /**
   * Runs the scripts, until one breaks flush consistency. Called once.
   *
   * @param goesOn asked before scripts are begun
   * @throws IOException as {@link ScriptRunner#run}
   */
  public Result run(ScriptRunner runner, BooleanSupplier goesOn) throws IOException {
    try (Connections connections = runner.connections(true)) {
      Iterator<List<Script>> batches = batches(runner.mostScripts(SECTORS)).iterator();
      while (batches.hasNext() && !found.containsKey(Level.FLUSH) && goesOn.getAsBoolean()) {
        List<Script> batch = batches.next();
        for (Replay replay : runner.run(batch, connections)) {
          keepNew(replay, runner, goesOn);
        }
        scripts.addAndGet(batch.size());
        restarts.addAndGet(batch.getFirst().restarts() ? 1 : 0);
      }
    }
    return result();
  }

  private void keepNew(Replay replay, ScriptRunner runner, BooleanSupplier goesOn) {
    for (Level level : Level.values()) {
      if (!found.containsKey(Level.FLUSH)
          && !found.containsKey(level)
          && replay.first(level).isPresent()) {
        found.put(level, Counterexample.seen(replay, level));
        found.put(level, new Shrinker(runner, level, SHRINKING, goesOn).shrink(replay));
      }
    }
  }

  /** Returns the number of scripts. */
  public long count() {
    return batches(MOST_AT_A_TIME).mapToLong(List::size).sum();
  }

  /** Returns every script, the shortest first. */
  Stream<Script> scripts() {
    return batches(MOST_AT_A_TIME).flatMap(List::stream);
  }

  /** Returns every script, in lists of so many of one pattern at the most. */
  Stream<List<Script>> batches(int most) {
    int size = Math.min(most, MOST_AT_A_TIME);
    return IntStream.rangeClosed(2, longest)
        .boxed()
        .flatMap(length -> patterns(List.of(), length))
        .map(pattern -> continuations(List.of(), pattern).toList())
        .flatMap(
            all ->
                IntStream.iterate(0, from -> from < all.size(), from -> from + size)
                    .mapToObj(from -> all.subList(from, Math.min(from + size, all.size()))));
  }

  /**
   * Returns the patterns of so many steps. A pattern has, for each step, the operation that all its
   * scripts make together, or {@link #ON_RANGE}.
   */
  private Stream<List<Step>> patterns(List<Step> steps, int length) {
    if (steps.size() == length) {
      return Stream.of(steps);
    }
    return patternSteps.stream().flatMap(step -> patterns(with(steps, step), length));
  }

  /** Returns a step's part in its script's pattern. */
  private static Step patternOf(Step step) {
    if (step.fua()) {
      return Step.of(step.connection(), Kind.WRITE, 0, 1).withFua();
    }
    return step.kind().hasRange() ? ON_RANGE : step;
  }

  private Stream<Script> continuations(List<Step> steps, List<Step> pattern) {
    if (steps.size() == pattern.size()) {
      return showsChanges(steps) ? Stream.of(new Script(steps)) : Stream.empty();
    }
    return next(steps).stream()
        .filter(step -> patternOf(step).equals(pattern.get(steps.size())))
        .filter(step -> step.kind() != Kind.RESTART || steps.size() == pattern.size() - 2)
        .flatMap(step -> continuations(with(steps, step), pattern));
  }

  private static List<Step> with(List<Step> steps, Step step) {
    List<Step> longer = new ArrayList<>(steps);
    longer.add(step);
    return longer;
  }

  private List<Step> next(List<Step> steps) {
    Script before = new Script(steps);
    List<Step> all = new ArrayList<>();
    for (Step operation : operations) {
      int sectors = operation.kind().hasRange() ? Math.min(SECTORS, before.sectors() + 1) : 1;
      for (int connection = 0;
          connection < Math.min(CONNECTIONS, before.connections() + 1);
          connection++) {
        for (int sector = 0; sector < sectors; sector++) {
          Step step = operation.onConnection(connection).onSectors(sector, operation.sectors());
          if (doesSomething(steps, step)) {
            all.add(step);
          }
        }
      }
    }
    return all;
  }

  private static boolean doesSomething(List<Step> before, Step step) {
    return switch (step.kind()) {
      case FLUSH -> !before.isEmpty();
      case RESTART -> step.connection() == 0 && !before.isEmpty();
      case CLOSE, CUT ->
          before.reversed().stream()
              .filter(each -> each.connection() == step.connection())
              .findFirst()
              .filter(last -> last.kind() != step.kind())
              .isPresent();
      default -> true;
    };
  }

  /** Says whether every sector is changed, and the last step reads one of which data are known. */
  private static boolean showsChanges(List<Step> steps) {
    boolean[] isChanged = new boolean[SECTORS];
    boolean[] isUsed = new boolean[SECTORS];
    boolean[] isKnown = new boolean[SECTORS];
    for (Step step : steps) {
      isUsed[step.sector()] |= step.kind().hasRange();
      isChanged[step.sector()] |= step.kind().changes();
      isKnown[step.sector()] |= step.kind().changes() && step.kind() != Kind.TRIM;
    }
    Step last = steps.getLast();
    return Arrays.equals(isChanged, isUsed) && last.kind() == Kind.READ && isKnown[last.sector()];
  }
}
