package nbd.check;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import nbd.check.Verdict.Answer;
import nbd.check.Verdict.Counts;
import nbd.check.Verdict.Proof;
import nbd.check.Violation.Level;

/** A history that was saved, and is judged without a server. */
public final class SavedHistory {
  private final EventJudge judge = new EventJudge();
  private final Map<Level, Violation> found = new EnumMap<>(Level.class);
  private long requests;
  private long failures;
  private long readSectors;

  private SavedHistory() {}

  /**
   * Judges the history of a file.
   *
   * @throws IOException as {@link HistoryFile#read}
   */
  public static Verdict judge(Path file) throws IOException {
    SavedHistory history = new SavedHistory();
    HistoryFile.read(file, history::take);
    return history.verdict();
  }

  private void take(Event event) {
    judge.accept(event).ifPresent(violation -> found.putIfAbsent(violation.level(), violation));
    if (event instanceof Event.End end) {
      requests++;
      failures += end.succeeded() ? 0 : 1;
      readSectors += end.contents().size();
    }
  }

  private Verdict verdict() {
    Answer other = readSectors == 0 ? Answer.NOT_TESTED : Answer.YES;
    Answer flushConsistent = found.containsKey(Level.FLUSH) ? Answer.NO : other;
    List<Proof> proofs = new ArrayList<>();
    found.values().forEach(violation -> proofs.add(new Proof(violation, Optional.empty())));
    return new Verdict(
        true,
        true,
        Answer.NOT_TESTED,
        flushConsistent,
        found.isEmpty() ? other : Answer.NO,
        Answer.NOT_TESTED,
        proofs,
        List.of(),
        new Counts(0, requests, readSectors, failures, 0, Duration.ZERO));
  }
}
