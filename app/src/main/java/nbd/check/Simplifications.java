package nbd.check;

import java.util.List;
import java.util.function.UnaryOperator;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import nbd.check.Step.Kind;

/** The scripts that are a little simpler than one, those that leave out most first. */
final class Simplifications {
  /** Up to this length, two steps at a time are left out. */
  private static final int SHORT = 12;

  private final Script script;
  private final int length;

  private Simplifications(Script script) {
    this.script = script;
    this.length = script.steps().size();
  }

  /** Returns the simpler scripts. Each is made when it is asked for. */
  static Stream<Script> of(Script script) {
    Simplifications all = new Simplifications(script);
    return Stream.of(
            Stream.of(onOneSector(script), script.mapping(step -> step.overlapping(0))),
            all.withFewerSteps(),
            all.withFewerConnections(),
            all.withSimplerSteps(),
            all.withoutPairs(),
            all.withFlushesElsewhere())
        .flatMap(some -> some)
        .map(Script::renumbered)
        .filter(Simplifications::showsAChange);
  }

  /** Returns the script with only the first sector of every range. */
  static Script onOneSector(Script script) {
    return script.mapping(step -> step.onSectors(0, Math.min(step.sectors(), 1)));
  }

  private static boolean showsAChange(Script script) {
    List<Step> steps = script.steps();
    return steps.stream().anyMatch(step -> step.kind().changes())
        && steps.getLast().kind() == Kind.READ;
  }

  /** Delta debugging: leaves out halves, quarters and so on, to single steps. */
  private Stream<Script> withFewerSteps() {
    return Stream.iterate(Math.ceilDiv(length, 2), size -> size > 0, size -> size / 2)
        .flatMap(
            size ->
                IntStream.iterate(length, end -> end > 0, end -> end - size)
                    .mapToObj(end -> script.keeping(i -> i < end - size || i >= end)));
  }

  private Stream<Script> withFewerConnections() {
    return pairs(script.connections())
        .map(
            pair ->
                script.mapping(
                    step ->
                        step.connection() == pair.larger ? step.onConnection(pair.smaller) : step));
  }

  private Stream<Script> withSimplerSteps() {
    return Stream.<UnaryOperator<Step>>of(
            step -> step.sectors() > 1 ? step.onSectors(step.sector(), 1) : step,
            step ->
                step.sectors() > 1 ? step.onSectors(step.sector() + 1, step.sectors() - 1) : step,
            step -> step.sector() > 0 ? step.onSectors(step.sector() - 1, step.sectors()) : step,
            Step::withoutFua,
            step -> step.overlapping(0),
            step -> step.overlapping(Math.max(0, step.overlap() - 1)),
            step -> step.kind() == Kind.CUT ? step.as(Kind.CLOSE) : step,
            step -> step.kind().changes() ? step.as(Kind.WRITE) : step)
        .flatMap(change -> IntStream.range(0, length).mapToObj(i -> script.mapping(i, change)));
  }

  /** Leaves out two steps together, such as a close and the read that fills a cache again. */
  private Stream<Script> withoutPairs() {
    return length > SHORT
        ? Stream.empty()
        : pairs(length).map(pair -> script.keeping(i -> i != pair.smaller && i != pair.larger));
  }

  /** Leaves out a step that is not needed if another connection flushes. */
  private Stream<Script> withFlushesElsewhere() {
    return length > SHORT
        ? Stream.empty()
        : IntStream.range(0, script.connections())
            .mapToObj(
                other ->
                    script.mapping(
                        step -> step.kind() == Kind.FLUSH ? step.onConnection(other) : step))
            .flatMap(
                changed ->
                    IntStream.range(0, length).mapToObj(out -> changed.keeping(i -> i != out)));
  }

  private record Pair(int smaller, int larger) {}

  private static Stream<Pair> pairs(int most) {
    return IntStream.iterate(most - 1, larger -> larger > 0, larger -> larger - 1)
        .boxed()
        .flatMap(
            larger -> IntStream.range(0, larger).mapToObj(smaller -> new Pair(smaller, larger)));
  }
}
