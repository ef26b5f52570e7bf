package nbd.check;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.random.RandomGenerator;
import java.util.stream.Stream;
import nbd.check.Step.Kind;

/**
 * Scripts with a few steps more than one: what is in caches, or in flight, makes the difference
 * between one that shows a fault and one that does not.
 */
final class Variations {
  private static final Kind[] KINDS = {Kind.READ, Kind.READ, Kind.WRITE, Kind.WRITE, Kind.FLUSH};
  private static final int MOST_MORE = 3;

  private final Script script;

  /** The script behind its own steps, which are in flight together. */
  private final Script repeated;

  Variations(Script script) {
    this.script = script;
    List<Step> twice = new ArrayList<>();
    script.steps().forEach(step -> twice.add(step.overlapping(1)));
    twice.removeLast();
    twice.addAll(script.steps());
    this.repeated = new Script(twice);
  }

  /** Returns random variations without end. */
  Stream<Script> stream() {
    return Stream.concat(Stream.of(repeated), Stream.generate(this::next));
  }

  private Script next() {
    RandomGenerator random = ThreadLocalRandom.current();
    int connections = script.connections() + random.nextInt(2);
    List<Step> steps = new ArrayList<>((random.nextBoolean() ? script : repeated).steps());
    for (int more = 1 + random.nextInt(MOST_MORE); more > 0; more--) {
      Kind kind = KINDS[random.nextInt(KINDS.length)];
      int connection = random.nextInt(connections);
      Step step = kind.hasRange() ? Step.of(connection, kind, 0, 1) : Step.of(connection, kind);
      steps.add(random.nextInt(steps.size()), step.overlapping(random.nextInt(2)));
    }
    return new Script(steps).renumbered();
  }
}
