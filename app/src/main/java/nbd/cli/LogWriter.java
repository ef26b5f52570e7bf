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
 * The writer of the log, which puts one line with the local date and time on standard error for
 * each entry, whatever characters a client put into a name. {@code tinylog.properties} names this
 * class. Any thread may call.
 */
public final class LogWriter implements Writer {
  private final boolean stacks;

  /** Called by tinylog, with the properties of {@code tinylog.writer}. */
  public LogWriter(Map<String, String> properties) {
    stacks = Boolean.parseBoolean(properties.get("stacks"));
  }

  /**
   * Chooses which entries are logged, before the first of them.
   *
   * @param verbose whether to log debug entries, and the stack of each failure
   */
  static void configure(boolean verbose) {
    System.setProperty("tinylog.level", verbose ? "debug" : "info");
    System.setProperty("tinylog.writer.stacks", "" + verbose);
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

  /** Formats an entry: its line, and with {@code stacks} those of the failure's stack. */
  String text(LogEntry entry) {
    StringBuilder text =
        new StringBuilder(
            "%s nbd-multiconn: %-5s %s%n"
                .formatted(
                    Time.FORMAT.format(entry.getTimestamp().toInstant()),
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

  /** The format of the time, made for the first entry: a start without one needs no time zones. */
  private static final class Time {
    static final DateTimeFormatter FORMAT =
        DateTimeFormatter.ofPattern("uuuu-MM-dd HH:mm:ss.SSSxxx").withZone(ZoneId.systemDefault());
  }
}
