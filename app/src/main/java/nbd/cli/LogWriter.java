package nbd.cli;

import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.Collection;
import java.util.EnumSet;
import java.util.Map;
import nbd.protocol.Printable;
import org.tinylog.core.LogEntry;
import org.tinylog.core.LogEntryValue;
import org.tinylog.writers.Writer;

/**
 * Writes the log to standard error: one line for each entry, with the local date and time, whatever
 * the other side put into a name or a text. {@code tinylog.properties} names this class. Any thread
 * may call.
 */
public final class LogWriter implements Writer {
  private static final DateTimeFormatter TIME =
      DateTimeFormatter.ofPattern("uuuu-MM-dd HH:mm:ss.SSSxxx").withZone(ZoneId.systemDefault());

  private final boolean stacks;

  /** Made by tinylog, with the properties of {@code tinylog.writer}. */
  public LogWriter(Map<String, String> properties) {
    stacks = Boolean.parseBoolean(properties.get("stacks"));
  }

  @Override
  public Collection<LogEntryValue> getRequiredLogEntryValues() {
    return EnumSet.of(
        LogEntryValue.DATE, LogEntryValue.LEVEL, LogEntryValue.MESSAGE, LogEntryValue.EXCEPTION);
  }

  @Override
  public void write(LogEntry entry) {
    System.err.print(text(entry));
  }

  /** The entry's line, and those of the stack where they are wanted. */
  String text(LogEntry entry) {
    StringBuilder text =
        new StringBuilder(
            "%s nbd-multiconn: %-5s %s%n"
                .formatted(
                    TIME.format(entry.getTimestamp().toInstant()),
                    entry.getLevel(),
                    Printable.line(String.valueOf(entry.getMessage()))));
    if (stacks && entry.getException() != null) {
      append(text, entry.getException());
    }
    return text.toString();
  }

  private static void append(StringBuilder text, Throwable failure) {
    String opening = "";
    for (Throwable part = failure; part != null; part = part.getCause()) {
      text.append("  %s%s%n".formatted(opening, Printable.line(part.toString())));
      for (StackTraceElement frame : part.getStackTrace()) {
        text.append("    at %s%n".formatted(frame));
      }
      opening = "caused by ";
    }
  }

  @Override
  public void flush() {
    System.err.flush();
  }

  @Override
  public void close() {
    // Standard error stays open.
  }
}
