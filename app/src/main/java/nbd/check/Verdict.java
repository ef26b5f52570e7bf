package nbd.check;

import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/**
 * The result of a check.
 *
 * @param isComplete whether nobody ended the check early
 * @param isPromised whether the server offers multi-conn
 * @param alone whether a connection by itself reads what it wrote; tested if multi-conn is not
 *     promised, or one connection was asked for
 * @param flushConsistent whether a flush on any connection covers the writes of all of them
 * @param coherent whether a read returns every write that was answered before, without a flush
 * @param durable whether data that was flushed survives a restart
 * @param proofs of each "no"
 * @param findings the other faults of the server
 * @param counts of the requests
 */
public record Verdict(
    boolean isComplete,
    boolean isPromised,
    Answer alone,
    Answer flushConsistent,
    Answer coherent,
    Answer durable,
    List<Proof> proofs,
    List<Finding> findings,
    Counts counts) {
  /** An answer to a question about the server. */
  public enum Answer {
    NOT_TESTED,
    YES,
    NO;

    /** Returns the answer of two tests: NO if one of them says so. */
    Answer or(Answer other) {
      return compareTo(other) > 0 ? this : other;
    }

    /** Returns the answer in words: "not tested". */
    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT).replace('_', ' ');
    }
  }

  /**
   * The requests of a check.
   *
   * @param scripts the short histories that were run
   * @param requests of the random history that were answered
   * @param readSectors the sectors that were read and judged
   * @param failures the requests that were answered by an error
   * @param restarts of the server
   * @param time for which requests were made
   */
  public record Counts(
      long scripts, long requests, long readSectors, long failures, long restarts, Duration time) {
    /** Nothing. */
    public static final Counts NONE = new Counts(0, 0, 0, 0, 0, Duration.ZERO);

    Counts plus(Counts more) {
      return new Counts(
          scripts + more.scripts,
          requests + more.requests,
          readSectors + more.readSectors,
          failures + more.failures,
          restarts + more.restarts,
          time.plus(more.time));
    }
  }

  /**
   * A broken promise.
   *
   * @param counterexample the smallest history found that breaks it again, if any does
   */
  public record Proof(Violation violation, Optional<Counterexample> counterexample) {}

  /** Keeps copies. */
  public Verdict {
    proofs = List.copyOf(proofs);
    findings = List.copyOf(findings);
  }

  /** Says whether the server keeps all that it promises, as far as the check has seen. */
  public boolean isKept() {
    return alone != Answer.NO
        && (!isPromised || flushConsistent != Answer.NO)
        && durable != Answer.NO
        && findings.stream().noneMatch(each -> each.severity() == Finding.Severity.BROKEN);
  }
}
