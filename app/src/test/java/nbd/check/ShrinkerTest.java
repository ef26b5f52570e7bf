package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.Stream;
import nbd.check.FaultyStorage.Fault;
import nbd.check.Step.Kind;
import nbd.check.Violation.Level;
import nbd.memory.MemoryBackend;
import nbd.server.TestServer;
import nbd.storage.Backend;
import org.junit.jupiter.api.Test;

final class ShrinkerTest {
  private static final long SEED =
      Long.getLong("nbd.seed", ThreadLocalRandom.current().nextLong(1_000_000));

  private static final List<Kind> KINDS =
      Stream.of(Kind.values()).filter(kind -> kind != Kind.RESTART).toList();

  private static Counterexample counterexample(Backend storage, Level level) throws Exception {
    SplittableRandom random = new SplittableRandom(SEED);
    try (TestServer server = TestServer.of(storage)) {
      ScriptRunner runner = new ScriptRunner(ScriptRunnerTest.target(server));
      Replay replay = Replay.NONE;
      // A fault that a script shows in one run only may be the work of a thread that came late.
      while (replay.first(level).isEmpty() || runner.run(replay.script()).first(level).isEmpty()) {
        replay = runner.run(random(random, 60));
      }
      return new Shrinker(runner, level, Duration.ofSeconds(10), () -> true).shrink(replay);
    }
  }

  private static Script random(SplittableRandom random, int length) {
    List<Step> steps = new ArrayList<>();
    for (int i = 0; i < length; i++) {
      int connection = random.nextInt(4);
      Kind kind = KINDS.get(random.nextInt(KINDS.size()));
      steps.add(
          kind.hasRange()
              ? Step.of(connection, kind, random.nextInt(4), 1 + random.nextInt(3))
                  .overlapping(random.nextInt(3))
              : Step.of(connection, kind));
    }
    return new Script(steps);
  }

  @Test
  void aFlushThatDropsNoOtherCacheIsShownInThreeSteps() throws Exception {
    Counterexample found = counterexample(new FaultyStorage(Fault.FLUSH_OF_ONE), Level.FLUSH);
    assertThat(found.steps()).as("seed %d: %s", SEED, found.lines()).hasSize(3);
    assertThat(found.broken()).isEqualTo(found.replays()).isPositive();
  }

  @Test
  void aFlushThatIsIgnoredIsShownInThreeSteps() throws Exception {
    Counterexample found = counterexample(new FaultyStorage(Fault.FLUSH_IGNORED), Level.FLUSH);
    assertThat(found.steps()).as("seed %d: %s", SEED, found.lines()).hasSize(3);
  }

  @Test
  void missingCoherenceIsShownInTwoSteps() throws Exception {
    Counterexample found = counterexample(new FaultyStorage(Fault.FLUSH_OF_ONE), Level.COHERENT);
    assertThat(found.steps())
        .as("seed %d: %s", SEED, found.lines())
        .containsExactly(Step.of(0, Kind.WRITE, 0, 1), Step.of(1, Kind.READ, 0, 1));
  }

  @Test
  void stepsBehindTheWrongReadAreLeftOutEvenIfNoReplayWithoutThemShowsTheFault() throws Exception {
    Script script =
        Script.of(
            Step.of(1, Kind.READ, 0, 1),
            Step.of(0, Kind.WRITE, 0, 1),
            Step.of(0, Kind.FLUSH),
            Step.of(1, Kind.FLUSH),
            Step.of(1, Kind.READ, 0, 1),
            Step.of(0, Kind.WRITE, 0, 1),
            Step.of(0, Kind.WRITE, 0, 1));
    try (TestServer server = TestServer.of(new FaultyStorage(Fault.FLUSH_OF_ONE))) {
      ScriptRunner runner = new ScriptRunner(ScriptRunnerTest.target(server));
      Replay right = runner.run(script);
      assertThat(right.found()).isEmpty();
      Replay.Found wrong = new Replay.Found(4, 0, violation(STALE), "step 2", false);
      Replay once =
          new Replay(script, right.offset(), right.unit(), right.answers(), List.of(wrong));
      Shrinker shrinker = new Shrinker(runner, Level.FLUSH, Duration.ofSeconds(5), () -> true);
      assertThat(shrinker.shrink(once).steps()).hasSize(3);
    }
  }

  @Test
  void anExcerptOverlapsAsTheHistoryDid() {
    List<Event> history =
        List.of(
            new Event.Start(8, true),
            begin(1, 7, Kind.WRITE, 5),
            begin(2, 8, Kind.WRITE, 4),
            end(2),
            begin(3, 9, Kind.FLUSH, 0),
            end(1),
            new Event.Close(7, true),
            end(3),
            begin(4, 10, Kind.READ, 5),
            end(4),
            begin(5, 8, Kind.WRITE, 5));
    assertThat(excerpt(history).script(request -> request.connection() != 8, 10))
        .isEqualTo(
            Script.of(
                Step.of(0, Kind.WRITE, 0, 1).overlapping(1),
                Step.of(1, Kind.FLUSH).overlapping(1),
                Step.of(0, Kind.CUT),
                Step.of(0, Kind.READ, 0, 1)));
    assertThat(excerpt(history).script(request -> true, 1).steps()).hasSize(3);
  }

  /** A history in which the first write and the read show the violation. */
  private static Excerpt excerpt(List<Event> history) {
    return new Excerpt(
        history,
        new Violation(
            Level.FLUSH,
            Violation.Kind.STALE_READ,
            5,
            10,
            4,
            List.of(0L),
            List.of(1L),
            List.of(),
            List.of(begin(1, 7, Kind.WRITE, 5), begin(4, 10, Kind.READ, 5))));
  }

  /** A history in which the flush does not cover the first write. */
  private static final List<Event> STALE =
      List.of(
          new Event.Start(8, true),
          begin(1, 7, Kind.WRITE, 5),
          end(1),
          begin(2, 7, Kind.WRITE, 2),
          end(2),
          begin(3, 8, Kind.FLUSH, 0),
          end(3),
          begin(4, 9, Kind.READ, 5),
          new Event.End(4, true, List.of(List.of(0L))));

  /** Judges a history. */
  private static Violation violation(List<Event> history) {
    EventJudge judge = new EventJudge();
    return history.stream()
        .flatMap(event -> judge.accept(event).stream())
        .findFirst()
        .orElseThrow();
  }

  private static Counterexample shrunk(Backend storage, List<Event> history, Violation violation)
      throws Exception {
    try (TestServer server = TestServer.of(storage)) {
      ScriptRunner runner = new ScriptRunner(ScriptRunnerTest.target(server));
      return new Shrinker(runner, Level.FLUSH, Duration.ofSeconds(5), () -> true)
          .shrink(history, violation);
    }
  }

  @Test
  void aHistoryIsShrunkAndBreaksAgain() throws Exception {
    Counterexample found = shrunk(new FaultyStorage(Fault.FLUSH_OF_ONE), STALE, violation(STALE));
    assertThat(found.steps()).hasSize(3);
    assertThat(found.broken()).isEqualTo(found.replays()).isPositive();
  }

  @Test
  void theRequestsThatShowAViolationAreToldWhereNoReplayDoes() throws Exception {
    assertThat(shrunk(new MemoryBackend(8 << 20), STALE, violation(STALE)).lines())
        .containsExactly(
            "It was seen once (stale read), and in no replay; these steps show it:",
            "  1. connection 1: write 512 bytes at 2560: ok",
            "  2. connection 2: flush: ok",
            "  3. connection 3: read 512 bytes at 2560: zeroes (expected: step 1)",
            "  Broken rule: after the answer to a flush, or to a write with FUA, every connection"
                + " reads what it covers or newer data; and each connection reads its own"
                + " writes.");
  }

  @Test
  void requestsThatAreNotAmongTheLastEventsAreToldToo() throws Exception {
    Counterexample found =
        shrunk(new MemoryBackend(8 << 20), STALE.subList(6, STALE.size()), violation(STALE));
    assertThat(found.history())
        .containsExactly(
            "connection 1: write 512 bytes at 2560: ok",
            "connection 2: flush: ok",
            "connection 3: read 512 bytes at 2560: zeroes (expected: step 1)");
  }

  @Test
  void theReadThatHasFilledACacheIsFoundWhereTheHistoryDoesNotHaveIt() throws Exception {
    Counterexample found = shrunk(new FaultyStorage(Fault.STALE_CACHE), STALE, violation(STALE));
    assertThat(found.broken()).as("%s", found.lines()).isPositive();
    assertThat(found.steps()).as("%s", found.lines()).hasSize(4);
  }

  @Test
  void aCrashAndTheEndOfTheConnectionAreTold() throws Exception {
    List<Event> history =
        List.of(
            new Event.Start(8, true),
            begin(1, 7, Kind.READ, 5),
            new Event.End(1, true, List.of(List.of(0L))),
            new Event.Crash(),
            begin(2, 8, Kind.WRITE, 5),
            end(2),
            begin(3, 9, Kind.FLUSH, 0),
            end(3),
            new Event.Close(8, false),
            new Event.Crash(),
            new Event.Close(9, false),
            begin(4, 10, Kind.READ, 4, 2),
            new Event.End(4, true, List.of(List.of(0L), List.of(0L))));
    assertThat(shrunk(new MemoryBackend(8 << 20), history, violation(history)).history())
        .containsExactly(
            "connection 1: write 512 bytes at 2560: ok",
            "connection 2: flush: ok",
            "connection 1: disconnect, and connect again: ok",
            "kill the server, start it, and connect again: ok",
            "connection 1: read 1024 bytes at 2048: zeroes, zeroes (expected at 2560: step 1)");
  }

  private static Event.Begin begin(long operation, int connection, Kind kind, int sector) {
    return begin(operation, connection, kind, sector, kind.hasRange() ? 1 : 0);
  }

  private static Event.Begin begin(
      long operation, int connection, Kind kind, int sector, int sectors) {
    return new Event.Begin(
        operation, connection, kind, sector, sectors, false, kind == Kind.WRITE ? operation : 0);
  }

  private static Event end(long operation) {
    return new Event.End(operation, true, List.of());
  }

  @Test
  void aCounterexampleIsToldInStepsThatAPersonRepeats() throws Exception {
    try (TestServer server = TestServer.of(new FaultyStorage(Fault.FLUSH_OF_ONE))) {
      ScriptRunner runner = new ScriptRunner(ScriptRunnerTest.target(server));
      Replay replay =
          runner.run(
              Script.of(
                  Step.of(0, Kind.WRITE, 1, 2).withFua().overlapping(1),
                  Step.of(1, Kind.FLUSH),
                  Step.of(0, Kind.FLUSH),
                  Step.of(1, Kind.READ, 0, 2),
                  Step.of(0, Kind.WRITE, 0, 1),
                  Step.of(0, Kind.FLUSH),
                  Step.of(1, Kind.READ, 0, 1)));
      Replay.Found found = replay.first(Level.FLUSH).orElseThrow();
      assertThat(new Counterexample(replay, found, 19, 20).lines())
          .containsExactly(
              "Smallest history found (stale read, in 19 of 20 replays):",
              "  1. connection 1: write 1024 bytes at 512 with FUA, answered after step 2 is sent:"
                  + " ok",
              "  2. connection 2: flush: ok",
              "  3. connection 1: flush: ok",
              "  4. connection 2: read 1024 bytes at 0: the first contents, step 1",
              "  5. connection 1: write 512 bytes at 0: ok",
              "  6. connection 1: flush: ok",
              "  7. connection 2: read 512 bytes at 0: the first contents (expected: step 5)",
              "  Broken rule: after the answer to a flush, or to a write with FUA, every connection"
                  + " reads what it covers or newer data; and each connection reads its own"
                  + " writes.",
              "  To repeat it: write 1536 bytes at 0 and flush, open 2 new connections, and make"
                  + " these steps with new data in each write.");
    }
  }
}
