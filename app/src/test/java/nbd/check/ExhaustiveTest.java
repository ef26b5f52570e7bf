package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import nbd.check.Exhaustive.Result;
import nbd.check.FaultyStorage.Fault;
import nbd.check.Step.Kind;
import nbd.check.Verdict.Answer;
import nbd.check.Violation.Level;
import nbd.memory.MemoryBackend;
import nbd.server.TestServer;
import nbd.storage.Backend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class ExhaustiveTest {
  private static final Duration SHORT = Duration.ofNanos(1);
  private static final Step WRITE = Step.of(0, Kind.WRITE, 0, 1);
  private static final Step READ = Step.of(0, Kind.READ, 0, 1);
  private static final List<Step> OPERATIONS =
      List.of(WRITE, READ, Step.of(0, Kind.FLUSH), Step.of(0, Kind.CLOSE));

  private static Result run(Backend storage, int longest) throws Exception {
    try (TestServer server = TestServer.of(storage)) {
      Target target = ScriptRunnerTest.target(server);
      return new Exhaustive(target.export(), false, longest)
          .run(new ScriptRunner(target), () -> true);
    }
  }

  @Test
  void aRightServerAnswersEveryScriptRightly() throws Exception {
    Result result = run(new MemoryBackend(8 << 20), 3);
    assertThat(result.found()).isEmpty();
    assertThat(result.scripts()).isEqualTo(320);
  }

  @Test
  void theShortestScriptsConvictABrokenServer() throws Exception {
    Result result = run(new FaultyStorage(Fault.FLUSH_OF_ONE), 4);
    assertThat(result.found().get(Level.COHERENT).steps()).hasSize(2);
    assertThat(result.found().get(Level.FLUSH).steps()).hasSize(3);
    assertThat(result.scripts()).as("it ends with the fault").isLessThan(320);
  }

  @Test
  void fourStepsMakeSomeThousandScripts() throws Exception {
    try (TestServer server = TestServer.of(new MemoryBackend(8 << 20))) {
      Target target = ScriptRunnerTest.target(server);
      assertThat(new Exhaustive(target.export(), false, 4).count()).isEqualTo(11_128);
    }
  }

  @Test
  void aCallerEndsIt() throws Exception {
    try (TestServer server = TestServer.of(new MemoryBackend(8 << 20))) {
      Target target = ScriptRunnerTest.target(server);
      int[] left = {10};
      Exhaustive all = new Exhaustive(target.export(), false, 4);
      Result result = all.run(new ScriptRunner(target), () -> left[0]-- > 0);
      assertThat(result.scripts()).isPositive().isLessThan(all.count());
    }
  }

  @Test
  void noScriptRunsWithOneThatFlushesElsewhere() throws Exception {
    try (TestServer server = TestServer.of(new MemoryBackend(8 << 20))) {
      Target target = ScriptRunnerTest.target(server);
      Exhaustive all = new Exhaustive(target.export(), true, 4);
      assertThat(all.batches(100))
          .allSatisfy(
              batch ->
                  assertThat(batch)
                      .hasSizeBetween(1, 100)
                      .extracting(ExhaustiveTest::pattern)
                      .containsOnly(pattern(batch.getFirst())));
    }
  }

  private static List<String> pattern(Script script) {
    return script.steps().stream()
        .map(
            step ->
                step.fua()
                    ? "FUA on " + step.connection()
                    : step.kind().hasRange() ? "" : step.kind() + " on " + step.connection())
        .toList();
  }

  @Test
  void aTrimAloneIsNotRead() throws Exception {
    List<Script> scripts =
        new Exhaustive(List.of(Step.of(0, Kind.TRIM, 0, 1), READ, WRITE), 3).scripts().toList();
    Step trim = Step.of(0, Kind.TRIM, 0, 1);
    assertThat(scripts)
        .contains(Script.of(WRITE, trim, READ), Script.of(trim, WRITE, READ))
        .doesNotContain(Script.of(trim, READ), Script.of(trim, trim, READ));
  }

  @Test
  void restartsShowDataThatComeBack(@TempDir Path directory) throws Exception {
    FaultyStorage storage = new FaultyStorage(Fault.RESURRECTED);
    try (CrashingServer server = new CrashingServer(storage, directory.resolve("socket"))) {
      Target target = server.target();
      Result result =
          new Exhaustive(target.export(), true, 3)
              .run(new ScriptRunner(target, Optional.of(server)), () -> true);
      assertThat(result.found().get(Level.FLUSH).steps())
          .containsExactly(WRITE, Step.of(0, Kind.RESTART), READ);
      assertThat(result.found().get(Level.FLUSH).found().isOfCrash()).isTrue();
      assertThat(result.restarts()).isPositive();
    }
  }

  private static Verdict checked(Fault fault, Path directory) throws IOException {
    Path socket = directory.resolve(fault.name());
    try (CrashingServer server = new CrashingServer(new FaultyStorage(fault), socket)) {
      Plan plan = new Plan(1, SHORT, 1, 3, Optional.of(server), Optional.empty());
      return new Examination(server.target(), plan).run();
    }
  }

  @Test
  void restartsSayWhetherFlushedDataAreDurable(@TempDir Path directory) throws Exception {
    Verdict broken = checked(Fault.RESURRECTED, directory);
    assertThat(broken.durable()).isEqualTo(Answer.NO);
    assertThat(broken.proofs())
        .extracting(proof -> proof.violation().level())
        .containsOnlyOnce(Level.FLUSH);
    assertThat(checked(Fault.FLUSH_OF_ONE, directory).durable()).isNotEqualTo(Answer.NO);
    Verdict right = checked(Fault.NONE, directory);
    assertThat(right.durable()).isEqualTo(Answer.YES);
    assertThat(right.counts().restarts()).isPositive();
  }

  /**
   * Each fault that any script shows is shown by a script of the enumeration that is part of it.
   */
  @Test
  void whatIsLeftOutShowsNoOtherFault() throws Exception {
    try (TestServer server = TestServer.of(new FaultyStorage(Fault.FLUSH_OF_ONE))) {
      ScriptRunner runner = new ScriptRunner(ScriptRunnerTest.target(server));
      try (Connections connections = runner.connections(true)) {
        List<Replay> chosen = new ArrayList<>();
        for (Script script : new Exhaustive(OPERATIONS, 3).scripts().toList()) {
          chosen.add(runner.run(script, connections));
        }
        assertThat(chosen).anyMatch(each -> each.first(Level.FLUSH).isPresent());
        for (Script script : unreduced(3)) {
          Replay replay = runner.run(script, connections);
          for (Level level : Level.values()) {
            if (replay.first(level).isPresent()) {
              List<Script> parts = parts(script);
              assertThat(chosen)
                  .as("%s, parts of %s", level, script)
                  .anyMatch(each -> each.first(level).isPresent() && parts.contains(each.script()));
            }
          }
        }
      }
    }
  }

  private static List<Script> unreduced(int length) {
    List<List<Step>> all = List.of(List.of());
    for (int i = 0; i < length; i++) {
      List<List<Step>> longer = new ArrayList<>();
      for (List<Step> steps : all) {
        anyStep()
            .forEach(step -> longer.add(Stream.concat(steps.stream(), Stream.of(step)).toList()));
      }
      all = longer;
    }
    return all.stream().map(Script::new).toList();
  }

  private static Stream<Step> anyStep() {
    return OPERATIONS.stream()
        .flatMap(step -> Stream.of(step, step.onConnection(1)))
        .flatMap(
            step ->
                step.kind().hasRange() ? Stream.of(step, step.onSectors(1, 1)) : Stream.of(step));
  }

  /** Returns what is left of a script without some of its steps, numbered by the first steps. */
  private static List<Script> parts(Script script) {
    List<Script> parts = new ArrayList<>();
    for (int set = 1; set < 1 << script.steps().size(); set++) {
      int kept = set;
      Script part = script.keeping(i -> (kept >> i & 1) != 0).renumbered();
      parts.add(part);
      parts.add(
          part.mapping(
              step -> step.kind().hasRange() ? step.onSectors(1 - step.sector(), 1) : step));
    }
    return parts;
  }
}
