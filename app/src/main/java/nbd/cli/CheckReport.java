package nbd.cli;

import static nbd.cli.ExportReport.quoted;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;
import nbd.check.Counterexample;
import nbd.check.Finding;
import nbd.check.Plan;
import nbd.check.Target;
import nbd.check.Verdict;
import nbd.check.Verdict.Answer;
import nbd.check.Verdict.Counts;
import nbd.check.Verdict.Proof;
import nbd.check.Violation;
import nbd.check.Violation.Level;

/**
 * The report of {@code check}, for people or as JSON.
 *
 * @param subject the fields of JSON that say what was checked
 * @param isLive whether a server was checked, not a saved history
 * @param restarts whether the server was to be restarted
 */
record CheckReport(Map<String, String> subject, boolean isLive, boolean restarts) {
  /** Reports on a server. */
  static CheckReport of(Target target, Plan plan) {
    Map<String, String> subject = new LinkedHashMap<>();
    subject.put("uri", quoted(target.uri().toString()));
    subject.put("offset", "" + target.offset());
    subject.put("bytes", "" + target.length());
    subject.put("sector_bytes", "" + target.unit());
    subject.put("connections", "" + plan.connections());
    subject.put("seed", "" + plan.seed());
    return new CheckReport(subject, true, plan.restart().isPresent());
  }

  /** Reports on a saved history. */
  static CheckReport of(Path history) {
    return new CheckReport(Map.of("history", quoted(history.toString())), false, false);
  }

  /** Says what will be overwritten. */
  static String announcement(Target target, Plan plan) {
    return String.format(
        Locale.ROOT,
        "Overwriting %,d bytes at %,d of %s: %d %s, seed %d%n",
        target.length(),
        target.offset(),
        target.uri(),
        plan.connections(),
        plan.connections() == 1 ? "connection" : "connections",
        plan.seed());
  }

  String text(Verdict verdict) {
    StringBuilder text = new StringBuilder(counts(verdict.counts())).append('\n');
    for (Proof proof : verdict.proofs()) {
      text.append(story(verdict, proof)).append('\n');
    }
    for (Finding finding : verdict.findings()) {
      text.append("%s: %s: %s%n".formatted(finding.severity(), finding.kind(), finding.sentence()));
      text.append(steps(finding.steps()));
    }
    text.append(verdict.findings().isEmpty() ? "" : "\n");
    if (isLive) {
      text.append("multi-conn: ").append(verdict.isPromised() ? "offered\n" : "not offered\n");
    }
    if (!verdict.isPromised() || verdict.alone() != Answer.NOT_TESTED) {
      text.append("one connection by itself: ").append(alone(verdict.alone())).append('\n');
    }
    text.append("flush consistent: ").append(flushConsistent(verdict)).append('\n');
    text.append("coherent: ").append(coherent(verdict)).append('\n');
    if (isLive) {
      text.append("durable: ").append(durable(verdict)).append('\n');
    }
    text.append(
        verdict.isComplete() ? "" : "The check was ended early; this is what it has found.\n");
    return text.append(conclusion(verdict)).append('\n').toString();
  }

  private String counts(Counts counts) {
    String scripts =
        counts.scripts() == 0
            ? ""
            : String.format(Locale.ROOT, "%,d short histories%n", counts.scripts());
    String restarts =
        counts.restarts() == 0
            ? ""
            : String.format(Locale.ROOT, "%,d restarts%n", counts.restarts());
    return scripts
        + String.format(
            Locale.ROOT,
            "%,d requests, %,d sectors read in %.1f s%n",
            counts.requests(),
            counts.readSectors(),
            counts.time().toMillis() / 1000.0)
        + restarts;
  }

  private static String alone(Answer answer) {
    return switch (answer) {
      case YES -> "kept";
      case NO -> "broken";
      case NOT_TESTED -> "not tested";
    };
  }

  private static String flushConsistent(Verdict verdict) {
    return switch (verdict.flushConsistent()) {
      case NO -> verdict.isPromised() ? "no" : "no (and not promised: use one connection)";
      case NOT_TESTED -> "not tested";
      case YES -> verdict.isPromised() ? "yes" : "yes, though not promised";
    };
  }

  private static String coherent(Verdict verdict) {
    return verdict.coherent() == Answer.NO && verdict.flushConsistent() == Answer.YES
        ? "no (safe for nbdcopy and qemu; not for nbd-client with more than one connection)"
        : verdict.coherent().toString();
  }

  private String durable(Verdict verdict) {
    return verdict.durable() == Answer.NOT_TESTED && !restarts
        ? "not tested (see --restart-command)"
        : verdict.durable().toString();
  }

  private static String conclusion(Verdict verdict) {
    return verdict.isKept() ? "No promise was broken." : "A promise was broken.";
  }

  private static String story(Verdict verdict, Proof proof) {
    String promise = "Not flush consistent, and not promised to be";
    if (proof.violation().level() == Level.COHERENT) {
      promise = "Not coherent";
    } else if (verdict.alone() == Answer.NO) {
      promise = "One connection by itself does not read what it has to";
    } else if (verdict.isPromised()) {
      promise = "The promise of multi-conn is broken";
    }
    return promise
        + ". "
        + proof
            .counterexample()
            .map(small -> String.join("\n", small.lines()) + "\n")
            .orElseGet(
                () ->
                    "It was seen once (%s):%n%s"
                        .formatted(proof.violation().kind(), steps(proof.violation().history())));
  }

  private static String steps(List<String> steps) {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < steps.size(); i++) {
      text.append(String.format(Locale.ROOT, "%4d. %s%n", i + 1, steps.get(i)));
    }
    return text.toString();
  }

  String json(Verdict verdict) {
    Counts counts = verdict.counts();
    Map<String, String> fields = new LinkedHashMap<>(subject);
    fields.put("seconds", String.format(Locale.ROOT, "%.3f", counts.time().toMillis() / 1000.0));
    fields.put("short_histories", "" + counts.scripts());
    fields.put("requests", "" + counts.requests());
    fields.put("failed_requests", "" + counts.failures());
    fields.put("sectors_read", "" + counts.readSectors());
    fields.put("restarts", "" + counts.restarts());
    fields.put("complete", "" + verdict.isComplete());
    fields.put("multi_conn", "" + verdict.isPromised());
    fields.put("one_connection", truth(verdict.alone()));
    fields.put("flush_consistent", truth(verdict.flushConsistent()));
    fields.put("coherent", truth(verdict.coherent()));
    fields.put("durable", truth(verdict.durable()));
    fields.put("kept", "" + verdict.isKept());
    fields.put("counterexamples", list(verdict.proofs().stream().map(CheckReport::json).toList()));
    fields.put("findings", list(verdict.findings().stream().map(CheckReport::json).toList()));
    return object(fields, "\n  ", "\n") + "\n";
  }

  private static String truth(Answer answer) {
    return switch (answer) {
      case YES -> "true";
      case NO -> "false";
      case NOT_TESTED -> "null";
    };
  }

  private static String json(Proof proof) {
    Violation violation = proof.violation();
    Map<String, String> fields = new LinkedHashMap<>();
    fields.put("level", quoted(violation.level().toString()));
    fields.put("kind", quoted(violation.kind().toString()));
    proof
        .counterexample()
        .ifPresent(
            small -> {
              fields.put("broken", "" + small.broken());
              fields.put("replays", "" + small.replays());
              fields.put("rule", quoted(small.rule()));
            });
    List<String> steps =
        proof.counterexample().map(Counterexample::history).orElse(violation.history());
    fields.put("steps", list(steps.stream().map(ExportReport::quoted).toList()));
    return object(fields, " ", " ");
  }

  private static String json(Finding finding) {
    Map<String, String> fields = new LinkedHashMap<>();
    fields.put("severity", quoted(finding.severity().toString()));
    fields.put("kind", quoted(finding.kind().toString()));
    fields.put("text", quoted(finding.sentence()));
    fields.put("steps", list(finding.steps().stream().map(ExportReport::quoted).toList()));
    return object(fields, " ", " ");
  }

  private static String object(Map<String, String> fields, String before, String end) {
    List<String> members = new ArrayList<>();
    fields.forEach((name, value) -> members.add(before + quoted(name) + ": " + value));
    return "{" + String.join(",", members) + end + "}";
  }

  private static String list(List<String> values) {
    return values.stream().collect(Collectors.joining(", ", "[", "]"));
  }
}
