package nbd.check;

import java.io.IOException;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArraySet;
import nbd.check.Finding.Kind;
import nbd.check.Finding.Severity;
import nbd.client.NbdUri;
import nbd.protocol.ProtocolException;
import nbd.storage.LostException;

/** The findings of an examination so far, in order and each once. Any thread may read them. */
final class Findings {
  private final String prefix;
  private final Set<Finding> found = new CopyOnWriteArraySet<>();

  /** Begins without any; the client's messages begin with the server's URI. */
  Findings(NbdUri uri) {
    this.prefix = uri + ": ";
  }

  /** A part of an examination. */
  @FunctionalInterface
  interface Part {
    void examine() throws IOException;
  }

  /** Runs a part, and reports how it failed. */
  void of(Kind kind, String doing, Part part) {
    try {
      part.examine();
    } catch (LostException | ProtocolException broken) {
      broken(Kind.PROTOCOL, "%s failed: %s".formatted(doing, message(broken)));
    } catch (IOException failure) {
      broken(kind, "%s failed: %s".formatted(doing, message(failure)));
    }
  }

  void broken(Kind kind, String sentence, String... steps) {
    add(Severity.BROKEN, kind, sentence, steps);
  }

  void warning(Kind kind, String sentence) {
    add(Severity.WARNING, kind, sentence);
  }

  void note(Kind kind, String sentence) {
    add(Severity.NOTE, kind, sentence);
  }

  void add(Severity severity, Kind kind, String sentence, String... steps) {
    found.add(new Finding(severity, kind, sentence, List.of(steps)));
  }

  /** Returns the message of a failure, without the URI. */
  String message(IOException failure) {
    String message = String.valueOf(failure.getMessage());
    return message.startsWith(prefix) ? message.substring(prefix.length()) : message;
  }

  List<Finding> all() {
    return List.copyOf(found);
  }
}
