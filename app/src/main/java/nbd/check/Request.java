package nbd.check;

import java.util.Locale;
import nbd.check.HistoryChecker.Write;
import nbd.check.Violation.Level;

/** A request of a history, and what the client knew when it began. */
abstract sealed class Request
    permits HistoryChecker.Read, HistoryChecker.Write, HistoryChecker.Flush {
  /** The time of an end that has not come. */
  static final long NEVER = Long.MAX_VALUE;

  /** One opening of a connection. */
  static final class Session {
    long closed = NEVER;
  }

  /** A flush that has succeeded, and when it began. */
  record Flushed(Event.Begin event, long began) {}

  final Event.Begin event;
  final Session session;
  final long began;

  /** The flush that began last, of those that had succeeded. */
  final Flushed flushed;

  Request(Event.Begin event, Session session, long began, Flushed flushed) {
    this.event = event;
    this.session = session;
    this.began = began;
    this.flushed = flushed;
  }

  /** Says whether it knows a write, by the rule of {@link HistoryChecker}. */
  boolean knows(Write write, Level level) {
    return !write.isLost && (write.ended < flushed.began || knowsWithoutFlush(write, level));
  }

  final boolean knowsWithoutFlush(Write write, Level level) {
    return write.ended < began
        && (level == Level.COHERENT || write.event.fua() || write.session == session);
  }

  /** Returns the name for people: "read 7 on connection 2". */
  final String describe() {
    return "%s %d%s on connection %d"
        .formatted(
            event.kind().name().toLowerCase(Locale.ROOT),
            event.operation(),
            event.fua() ? " with FUA" : "",
            event.connection());
  }
}
