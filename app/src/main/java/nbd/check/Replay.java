package nbd.check;

import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import nbd.check.Violation.Level;

/**
 * A script as a server has answered it once.
 *
 * @param script that was run
 * @param offset of its first sector in the export, in bytes
 * @param unit the size of a sector, in bytes
 * @param answers to its steps, for people: "ok", an error, or the step that wrote each sector read
 * @param found the reads that a promise does not allow
 */
public record Replay(
    Script script, long offset, int unit, List<String> answers, List<Found> found) {
  static final Replay NONE = new Replay(Script.of(), 0, 1, List.of(), List.of());

  /**
   * A read that a promise does not allow.
   *
   * @param step that read, counted from 0
   * @param sector that the read should not have returned so, by the script's numbers
   * @param violation as the judge tells it
   * @param expected what the read might have returned, for people
   * @param isOfCrash whether a crash has undone what was durable; see {@link Durability}
   */
  public record Found(
      int step, int sector, Violation violation, String expected, boolean isOfCrash) {}

  /** Keeps copies. */
  public Replay {
    answers = List.copyOf(answers);
    found = List.copyOf(found);
  }

  /** Returns where a sector of the script begins in the export, in bytes. */
  long offsetOf(int sector) {
    return offset + (long) sector * unit;
  }

  /** Returns the earliest step that breaks the promise of a level. */
  public Optional<Found> first(Level level) {
    return found.stream()
        .filter(each -> each.violation.level().compareTo(level) <= 0)
        .min(Comparator.comparingInt(Found::step));
  }
}
