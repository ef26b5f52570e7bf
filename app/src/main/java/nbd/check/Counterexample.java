package nbd.check;

import java.util.ArrayList;
import java.util.List;
import nbd.check.Step.Kind;
import nbd.check.Violation.Level;

/**
 * The smallest history found that a server answers wrongly.
 *
 * @param replay of it that showed the violation; without further replays, the steps of a longer
 *     history that show it
 * @param found the violation
 * @param broken in how many further replays it showed
 * @param replays how many there were; 0 if no replay of any part of the history showed it
 */
public record Counterexample(Replay replay, Replay.Found found, int broken, int replays) {
  /** Makes one of steps that have shown a violation once. */
  static Counterexample seen(Replay replay, Level level) {
    return new Counterexample(replay, replay.first(level).orElseThrow(), 0, 0);
  }

  /** Returns the part of the replays that showed the violation. */
  double often() {
    return replays == 0 ? 0 : (double) broken / replays;
  }

  /** Returns its steps. */
  public List<Step> steps() {
    return replay.script().steps();
  }

  /** Returns the promise that is broken, for people. */
  public String rule() {
    Violation violation = found.violation();
    return switch (violation.kind()) {
      case STALE_READ ->
          violation.level() == Level.COHERENT
              ? "after a write's answer, every connection reads it or newer data"
              : "after the answer to a flush, or to a write with FUA, every connection reads what"
                  + " it covers or newer data; and each connection reads its own writes";
      case LOST_WRITE -> "a write that a flush or FUA covers outlives its connection";
      case SHORN_WRITE -> "a sector holds one write, not parts of two";
      case UNSERIALIZABLE_WRITES -> "all reads of a sector agree on one order of its writes";
      case RESURRECTED_DATA -> "data that was overwritten and flushed does not come back";
      case FOREIGN_DATA -> "a read returns data that was written to the same sector";
    };
  }

  /** Returns the steps with their answers, for people. */
  public List<String> history() {
    List<String> history = new ArrayList<>();
    for (int i = 0; i < steps().size(); i++) {
      String expected = i == found.step() ? expected(steps().get(i)) : "";
      history.add("%s: %s%s".formatted(words(i), replay.answers().get(i), expected));
    }
    return history;
  }

  private String expected(Step read) {
    String place = read.sectors() > 1 ? " at " + replay.offsetOf(found.sector()) : "";
    return " (expected%s: %s)".formatted(place, found.expected());
  }

  /**
   * Returns the history for a person who repeats it by hand: a title, the steps with their answers,
   * the rule, and how to prepare.
   */
  public List<String> lines() {
    List<String> lines = new ArrayList<>();
    lines.add(
        replays == 0
            ? "It was seen once (%s), and in no replay; these steps show it:"
                .formatted(found.violation().kind())
            : "Smallest history found (%s, in %d of %d replays):"
                .formatted(found.violation().kind(), broken, replays));
    for (String step : history()) {
      lines.add("  %d. %s".formatted(lines.size(), step));
    }
    lines.add("  Broken rule: " + rule() + ".");
    if (replays == 0) {
      return lines;
    }
    lines.add(
        "  To repeat it: write %d bytes at %d and flush, open %s, and make these steps with new data"
                .formatted(
                    replay.script().sectors() * replay.unit(),
                    replay.offset(),
                    replay.script().connections() == 1
                        ? "a new connection"
                        : replay.script().connections() + " new connections")
            + " in each write.");
    return lines;
  }

  private String words(int index) {
    Step step = steps().get(index);
    String range =
        step.kind().hasRange()
            ? " %d bytes at %d"
                .formatted(step.sectors() * replay.unit(), replay.offsetOf(step.sector()))
            : "";
    String flag = step.fua() ? " with FUA" : "";
    String overlap =
        step.overlap() == 0
            ? ""
            : ", answered after step %d is sent".formatted(index + 1 + step.overlap());
    String connection =
        step.kind() == Kind.RESTART ? "" : "connection %d: ".formatted(step.connection() + 1);
    return connection + step.kind().words() + range + flag + overlap;
  }
}
