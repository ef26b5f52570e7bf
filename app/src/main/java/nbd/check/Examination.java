package nbd.check;

import java.io.IOException;
import java.nio.file.FileSystemException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import nbd.check.Driver.Found;
import nbd.check.Finding.Kind;
import nbd.check.Verdict.Answer;
import nbd.check.Verdict.Counts;
import nbd.check.Verdict.Proof;
import nbd.check.Violation.Level;
import nbd.protocol.TransmissionFlag;
import org.jspecify.annotations.Nullable;

/**
 * A check of one server: the short histories if they are wanted, a random history over several
 * connections, and then the examination of what the server advertises. A server that does not offer
 * multi-conn is first checked with one connection; what several do is not held against it.
 *
 * <p>One thread runs the check. Any other may ask for the verdict so far, also while the server
 * does not answer.
 */
public final class Examination {
  /** Limit on the time of one search for a small history. */
  private static final Duration SHRINKING = Duration.ofSeconds(10);

  private static final Duration SHRINKING_BY_RESTARTS = Duration.ofSeconds(30);

  private final Target target;
  private final Plan plan;
  private final boolean isPromised;
  private final Exhaustive shortHistories;
  private final List<Run> runs = new CopyOnWriteArrayList<>();

  /** The smallest history found for each violation of the random histories. */
  private final Map<Violation, Counterexample> counterexamples = new ConcurrentHashMap<>();

  private final Findings findings;
  private volatile @Nullable SavedEvents saved;

  /** True if nothing more is to be begun. */
  private volatile boolean isOver;

  /** True if {@link #stop} was called. */
  private volatile boolean isEndedEarly;

  /**
   * A random history.
   *
   * @param isAlone whether it has one connection only
   */
  private record Run(Driver driver, boolean isAlone) {}

  /** Prepares a check. */
  public Examination(Target target, Plan plan) {
    this.target = target;
    this.plan = plan;
    this.isPromised = target.export().has(TransmissionFlag.CAN_MULTI_CONN);
    this.shortHistories =
        new Exhaustive(target.export(), plan.restart().isPresent(), plan.longest());
    this.findings = new Findings(target.uri());
  }

  /**
   * Runs the check until it is complete or {@link #stop} is called. Called once.
   *
   * @throws IOException if the server cannot be reached, or cannot be restarted, or the history
   *     cannot be saved
   */
  public Verdict run() throws IOException {
    try {
      Exhaustive.Result found =
          shortHistories.run(new ScriptRunner(target, plan.restart()), () -> !isOver);
      if (!isPromised || !found.found().containsKey(Level.FLUSH)) {
        runRandomHistories();
      }
      if (!isOver) {
        examineAdvertised();
      }
    } catch (FileSystemException unsaved) {
      throw unsaved;
    } catch (IOException failure) {
      if (!isEndedEarly) {
        throw failure;
      }
    }
    return verdict();
  }

  private void runRandomHistories() throws IOException {
    if (plan.connections() == 1) {
      drive(1, plan.duration());
    } else if (isPromised) {
      drive(plan.connections(), plan.duration());
    } else {
      Duration half = plan.duration().dividedBy(2);
      drive(1, half);
      boolean isBroken =
          runs.getLast().driver().violation().isPresent()
              || shortHistories.result().found().containsKey(Level.FLUSH);
      if (!isOver && !isBroken) {
        tryDriveSeveral(half);
      }
    }
  }

  /** Tests connections that were not promised to be of use together. */
  private void tryDriveSeveral(Duration duration) throws FileSystemException {
    try {
      drive(plan.connections(), duration);
    } catch (FileSystemException unsaved) {
      throw unsaved;
    } catch (IOException refused) {
      findings.note(
          Kind.CONNECTIONS, "several connections were not tested: " + refused.getMessage());
    }
  }

  private void drive(int connections, Duration duration) throws IOException {
    if (plan.save().isEmpty()) {
      drive(new Driver(target, connections, plan.seed()), connections, duration);
      return;
    }
    try (SavedEvents file = new SavedEvents(plan.save().get(), this::end)) {
      saved = file;
      drive(new Driver(target, connections, plan.seed(), file), connections, duration);
    }
  }

  private void drive(Driver driver, int connections, Duration duration) throws IOException {
    runs.add(new Run(driver, connections == 1));
    if (isOver) {
      return;
    }
    driver.drive(duration, plan.restart());
    if (driver.hasLostServer()) {
      end();
    }
    if (driver.violation().isPresent()) {
      search(driver.violation().get());
    }
    if (connections > 1 && driver.incoherence().isPresent() && isCoherentSoFar()) {
      search(driver.incoherence().get());
    }
  }

  /** Searches for a small history that breaks the same promise. */
  private void search(Found found) {
    Violation violation = found.violation();
    Shrinker shrinker =
        new Shrinker(
            new ScriptRunner(target, plan.restart()),
            violation.level(),
            plan.restart().isPresent() ? SHRINKING_BY_RESTARTS : SHRINKING,
            () -> !isOver);
    counterexamples.put(violation, shrinker.shrink(found.history(), violation));
  }

  private boolean isCoherentSoFar() {
    return shortHistories.result().found().isEmpty();
  }

  private void examineAdvertised() {
    try {
      // Each connection of the examination would wait in vain for a server that hangs.
      target.connect().close();
      Advertised.examine(target, findings);
    } catch (IOException gone) {
      findings.broken(
          Kind.CONNECTIONS, "what it advertises was not examined: " + gone.getMessage());
    }
  }

  /** Ends the check soon, with the verdict so far. Any thread may call. */
  public void stop() {
    isEndedEarly = true;
    end();
  }

  private void end() {
    isOver = true;
    runs.forEach(run -> run.driver().stop());
  }

  /**
   * Gives up a check that {@link #stop} does not end, since the server or the restart command takes
   * its time. Any thread may call; the thread that runs the check may never return from it.
   *
   * @return the verdict so far
   * @throws IOException if the history cannot be saved
   */
  public Verdict abandon() throws IOException {
    SavedEvents file = saved;
    if (file != null) {
      file.close();
    }
    return verdict();
  }

  private Verdict verdict() {
    Exhaustive.Result scripts = shortHistories.result();
    List<Proof> proofs = new ArrayList<>();
    scripts
        .found()
        .values()
        .forEach(each -> proofs.add(new Proof(each.found().violation(), Optional.of(each))));
    Answer alone = Answer.NOT_TESTED;
    Answer flushConsistent =
        scripts.found().containsKey(Level.FLUSH) ? Answer.NO : Answer.NOT_TESTED;
    Answer coherent = isCoherentSoFar() ? Answer.NOT_TESTED : Answer.NO;
    Answer durable = durable(scripts);
    List<Finding> all = new ArrayList<>();
    for (Run run : runs) {
      Driver driver = run.driver();
      Optional<Found> violation = driver.violation();
      violation.map(this::proof).ifPresent(proofs::add);
      all.addAll(driver.findings());
      if (driver.counts().restarts() > 0 && (isPromised || run.isAlone())) {
        durable = durable.or(answer(driver, violation.filter(Examination::isOfDurability)));
      }
      if (run.isAlone()) {
        alone = answer(driver, violation);
      } else {
        flushConsistent = flushConsistent.or(answer(driver, violation));
        coherent = coherent.or(answer(driver, violation.or(driver::incoherence)));
        driver
            .incoherence()
            .filter(each -> isCoherentSoFar())
            .map(this::proof)
            .ifPresent(proofs::add);
      }
    }
    all.addAll(findings.all());
    return new Verdict(
        !isEndedEarly,
        isPromised,
        alone,
        flushConsistent,
        coherent,
        durable,
        proofs,
        all,
        counts());
  }

  /** Without multi-conn, a flush is for the writes of its own connection only. */
  private Answer durable(Exhaustive.Result scripts) {
    boolean isBroken =
        scripts.found().values().stream()
            .filter(each -> isPromised || each.replay().script().connections() == 1)
            .anyMatch(each -> each.found().isOfCrash());
    if (isBroken) {
      return Answer.NO;
    }
    return scripts.restarts() > 0 ? Answer.YES : Answer.NOT_TESTED;
  }

  private Proof proof(Found found) {
    Violation violation = found.violation();
    return new Proof(violation, Optional.ofNullable(counterexamples.get(violation)));
  }

  private static Answer answer(Driver run, Optional<Found> proof) {
    if (proof.isPresent()) {
      return Answer.NO;
    }
    return run.hasTested() ? Answer.YES : Answer.NOT_TESTED;
  }

  private static boolean isOfDurability(Found found) {
    return Durability.isBroken(found.violation(), found.history());
  }

  /** Returns the counts so far. Any thread may call. */
  public Counts counts() {
    Exhaustive.Result scripts = shortHistories.result();
    Counts counts = new Counts(scripts.scripts(), 0, 0, 0, scripts.restarts(), Duration.ZERO);
    for (Run run : runs) {
      counts = counts.plus(run.driver().counts());
    }
    return counts;
  }
}
