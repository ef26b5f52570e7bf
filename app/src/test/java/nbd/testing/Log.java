package nbd.testing;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import org.tinylog.Level;
import org.tinylog.core.LogEntry;
import org.tinylog.core.LogEntryValue;
import org.tinylog.writers.Writer;

/** The log of the tests, kept in memory; src/test/resources/tinylog-test.properties names it. */
public final class Log implements Writer {
  private static final int KEPT = 200_000;

  /** Guarded by its monitor. */
  private static final List<Line> LINES = new ArrayList<>();

  /** Makes the writer, for tinylog. */
  public Log(Map<String, String> properties) {}

  /** An entry of the log. */
  public record Line(Level level, String message) {}

  /** Forgets what was logged so far. */
  public static void clear() {
    synchronized (LINES) {
      LINES.clear();
    }
  }

  /** Returns the entries at this level or above since {@link #clear}. */
  public static List<String> at(Level least) {
    Predicate<Line> loud = line -> line.level().compareTo(least) >= 0;
    synchronized (LINES) {
      return LINES.stream().filter(loud).map(line -> line.level() + ": " + line.message()).toList();
    }
  }

  @Override
  public java.util.Collection<LogEntryValue> getRequiredLogEntryValues() {
    return List.of(LogEntryValue.LEVEL, LogEntryValue.MESSAGE, LogEntryValue.EXCEPTION);
  }

  @Override
  public void write(LogEntry entry) {
    String failure = entry.getException() == null ? "" : " " + entry.getException();
    synchronized (LINES) {
      if (LINES.size() < KEPT) {
        LINES.add(new Line(entry.getLevel(), entry.getMessage() + failure));
      }
    }
  }

  @Override
  public void flush() {
    // Nothing is buffered.
  }

  @Override
  public void close() {
    // Nothing is held.
  }
}
