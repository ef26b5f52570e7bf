package nbd.check;

import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import nbd.check.HistoryChecker.Flush;
import nbd.check.HistoryChecker.Read;
import nbd.check.HistoryChecker.Write;
import nbd.check.Violation.Level;
import org.jspecify.annotations.Nullable;

/** A judge of a history that is told as events, in the order of time. Used by one thread. */
public final class EventJudge {
  private final Sector.Limits limits;
  private final Map<Long, Request> pending = new HashMap<>();
  private @Nullable HistoryChecker checker;
  private int sectors;
  private long lastOperation;

  /** Waits for the beginning of a history; will judge both levels. */
  public EventJudge() {
    this(Sector.LIMITS);
  }

  EventJudge(Sector.Limits limits) {
    this.limits = limits;
  }

  /**
   * Takes the next event, and judges it if it is the end of a read.
   *
   * @throws IllegalArgumentException if it cannot follow the ones before
   */
  public Optional<Violation> accept(Event event) {
    HistoryChecker checker = this.checker;
    if (event instanceof Event.Start start) {
      require(checker == null, "the history begins again");
      sectors = start.sectors();
      this.checker = new HistoryChecker(start, Set.of(Level.values()), 0, ignored -> {}, limits);
      return Optional.empty();
    }
    if (checker == null) {
      throw new IllegalArgumentException("the history has to begin with the number of sectors");
    }
    switch (event) {
      case Event.Start start -> throw new AssertionError(start);
      case Event.Begin begin -> begin(begin, checker);
      case Event.End end -> {
        return end(end, checker);
      }
      case Event.Close close -> checker.close(close.connection(), close.cut());
      case Event.Crash crash -> checker.crash();
    }
    return Optional.empty();
  }

  private void begin(Event.Begin begin, HistoryChecker checker) {
    require(begin.operation() > lastOperation, "operations have to be numbered upwards from 1");
    boolean hasRange = begin.kind().hasRange();
    require(
        hasRange ? begin.sectors() > 0 : begin.sectors() == 0 && begin.sector() == 0,
        hasRange ? "the range is empty" : "a flush has no range");
    require(
        begin.sector() >= 0 && begin.sector() <= sectors - begin.sectors(),
        "the range reaches past the last sector");
    require(
        (begin.value() != 0) == (begin.kind() == Step.Kind.WRITE),
        "a write needs a value other than 0, and nothing else has one");
    require(
        begin.value() >= 0 || begin.value() + begin.sectors() <= 0,
        "a sector of the write has the value 0");
    lastOperation = begin.operation();
    pending.put(begin.operation(), checker.begin(begin));
  }

  private Optional<Violation> end(Event.End end, HistoryChecker checker) {
    Request request = pending.remove(end.operation());
    if (request == null) {
      throw new IllegalArgumentException(
          "operation %d is not in flight".formatted(end.operation()));
    }
    boolean hasData = request instanceof Read && end.succeeded();
    require(
        end.contents().size() == (hasData ? request.event.sectors() : 0),
        hasData ? "the data are not those of each sector" : "only a successful read has data");
    switch (request) {
      case Write write -> checker.endWrite(write, end.succeeded());
      case Flush flush -> checker.endFlush(flush, end.succeeded());
      case Read read when hasData -> {
        return checker.endRead(read, end.contents());
      }
      case Read read -> checker.failRead(read);
    }
    return Optional.empty();
  }

  private static void require(boolean condition, String message) {
    if (!condition) {
      throw new IllegalArgumentException(message);
    }
  }
}
