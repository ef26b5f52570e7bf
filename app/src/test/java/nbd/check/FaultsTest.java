package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;
import nbd.check.FaultyStorage.Fault;
import nbd.check.Step.Kind;
import nbd.check.Verdict.Answer;
import nbd.check.Violation.Level;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import nbd.server.TestServer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * The check of servers with one fault each. The property {@code nbd.check.seeds} says how many
 * histories each of them has to be convicted by, {@code nbd.check.seed} repeats the choices of a
 * run that failed (not its interleaving).
 */
@Timeout(3600)
final class FaultsTest {
  private static final int SEEDS = Integer.getInteger("nbd.check.seeds", 10);

  /** So many violations of each fault are shrunk. */
  private static final int SHRUNK = Integer.getInteger("nbd.check.shrunk", 1);

  /** The faults that are tested; all if empty. */
  private static final String FAULTS = System.getProperty("nbd.check.faults", "");

  private static final int MOST_STEPS = 10;

  /** The steps of every violation that was shrunk. */
  private static final List<Integer> LENGTHS = new ArrayList<>();

  private static final long SEED =
      Long.getLong("nbd.check.seed", ThreadLocalRandom.current().nextInt(1 << 30));

  /** Limits on finding a fault, which takes a moment, and on making its history smaller. */
  private static final Duration LONG = Duration.ofMinutes(1);

  private static final Duration LIMIT = Duration.ofSeconds(10);

  private static Target target(TestServer server) throws IOException {
    UnixDomainSocketAddress address = (UnixDomainSocketAddress) server.address();
    return Target.open(NbdUri.unix(address.getPath(), ""), ClientSettings.DEFAULT);
  }

  @ParameterizedTest
  @EnumSource(
      mode = EnumSource.Mode.EXCLUDE,
      names = {"NONE", "RESURRECTED", "LYING_EXTENTS"})
  void isFound(Fault fault) throws IOException {
    assumeTrue(FAULTS.isEmpty() || List.of(FAULTS.split(",")).contains(fault.name()));
    List<Long> millis = new ArrayList<>();
    List<Counterexample> shrunk = new ArrayList<>();
    int missed = 0;
    try (TestServer server = TestServer.of(new FaultyStorage(fault))) {
      Target target = target(server);
      for (int run = 0; run < SEEDS; run++) {
        long start = System.nanoTime();
        RandomHistory history = RandomHistory.drive(target, SEED + run, LONG);
        missed += history.violation().isEmpty() ? 1 : 0;
        millis.add((System.nanoTime() - start) / 1_000_000);
        if (shrunk.size() < SHRUNK) {
          history
              .violation()
              .map(violation -> shrink(new ScriptRunner(target), history.events(), violation))
              .ifPresent(shrunk::add);
        }
      }
    }
    report(fault, millis, shrunk);
    assertThat(missed)
        .as("histories without a violation")
        .isLessThanOrEqualTo(Math.max(1, SEEDS / 100));
  }

  private static Counterexample shrink(
      ScriptRunner runner, List<Event> history, Violation violation) {
    return new Shrinker(runner, Level.FLUSH, LIMIT, () -> true).shrink(history, violation);
  }

  private static void report(Fault fault, List<Long> millis, List<Counterexample> shrunk) {
    System.out.println(
        "-Dnbd.check.seed=%d for %s: %s ms, steps %s"
            .formatted(
                SEED,
                fault,
                millis,
                shrunk.stream()
                    .map(each -> each.steps().size() + "/" + each.broken() + "/" + each.replays())
                    .toList()));
    for (Counterexample each : shrunk) {
      LENGTHS.add(each.steps().size());
      assertThat(each.steps()).as("%s", each.lines()).hasSizeLessThanOrEqualTo(MOST_STEPS);
      assertThat(each.broken() > 0 || each.replays() == 0).as("%s", each.lines()).isTrue();
    }
  }

  @AfterAll
  static void halfAreShownByFewSteps() {
    List<Integer> sorted = LENGTHS.stream().sorted().toList();
    assertThat(sorted.get(sorted.size() / 2)).as("the median's steps").isLessThanOrEqualTo(6);
  }

  /** Checks a server that crashes, and starts again on the same storage at the same path. */
  private static Verdict checked(Fault fault, Path directory, Duration duration)
      throws IOException {
    Path link = directory.resolve(fault.name());
    try (CrashingServer server = new CrashingServer(new FaultyStorage(fault), link)) {
      Plan plan = new Plan(4, duration, SEED, 0, Optional.of(server), Optional.empty());
      return new Examination(server.target(), plan).run();
    }
  }

  @Test
  void isFoundAfterACrash(@TempDir Path directory) throws IOException {
    Verdict verdict = checked(Fault.RESURRECTED, directory, LONG);
    assertThat(verdict.durable()).as("seed " + SEED).isEqualTo(Answer.NO);
    Counterexample found = verdict.proofs().getFirst().counterexample().orElseThrow();
    report(Fault.RESURRECTED, List.of(), List.of(found));
    assertThat(found.steps()).anyMatch(step -> step.kind() == Kind.RESTART);
    assertThat(found.broken()).as("%s", found.lines()).isEqualTo(found.replays()).isPositive();
    assertThat(durableWithoutAFault(directory)).as("seed " + SEED).isEqualTo(Answer.YES);
  }

  /** Takes longer where the machine is too busy for a restart within a second. */
  private static Answer durableWithoutAFault(Path directory) throws IOException {
    Answer answer = Answer.NOT_TESTED;
    for (int seconds = 1; seconds < 100 && answer == Answer.NOT_TESTED; seconds *= 4) {
      answer = checked(Fault.NONE, directory, Duration.ofSeconds(seconds)).durable();
    }
    return answer;
  }

  @Test
  void nothingIsFoundWithoutAFault() throws IOException {
    try (TestServer server = TestServer.of(new FaultyStorage(Fault.NONE))) {
      for (int run = 0; run < SEEDS; run++) {
        Duration time = Duration.ofMillis(200);
        RandomHistory history = RandomHistory.drive(target(server), SEED + run, time);
        assertThat(history.violation()).as("-Dnbd.check.seed=" + (SEED + run)).isEmpty();
      }
    }
  }
}
