package nbd.check;

import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SequencedSet;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import java.util.function.Supplier;
import nbd.check.Violation.Level;

/**
 * A judge of what clients read over several connections to one export: it finds each read that the
 * promise of multi-conn does not allow, or that a coherent server would not have answered so. The
 * beginning and the end of every request are reported as the client sees them: the beginning before
 * the request is sent, the end after the reply has come. Each sector is a register, and each write
 * has a value of its own.
 *
 * <p>The rule. Time is the order of the reports. A write or read <i>knows</i> a successful write
 * <i>w</i>, if <i>w</i> ended before it began, and, unless the level is coherence,
 *
 * <ul>
 *   <li>both are on the same connection, or
 *   <li><i>w</i> was made with FUA, or
 *   <li>some flush, on any connection, began after <i>w</i> ended, succeeded, and ended before it
 *       began.
 * </ul>
 *
 * There has to be one order of the sector's writes in which a write comes after those that it
 * knows, and a read returns a write that began before the read ended, and after which comes no
 * write that the read knows. The first contents are a write that everything knows. A write that
 * failed, or has no reply, may be seen at any time, and nothing knows it. A crash makes the same of
 * the answered writes that are neither made with FUA nor flushed, but they stay older than any
 * write that begins after it.
 *
 * <p>So at the level of flushes, two writes on different connections without a flush between them
 * have no order, even if one ended before the other began: either may win, as it may where
 * connections have caches. But all reads have to agree on the winner.
 *
 * <p>A zeroing has the value 0, as others have. A read of zeroes settles an order only if one
 * zeroing alone can have left them. A trim leaves anything. The parts of a sector that is a mixture
 * are judged each on its own, since no write is atomic.
 *
 * <p>Any thread may call. Writes that no read can return any more are forgotten, so that memory
 * does not grow with the history, except for the values of failed writes, and of writes that no
 * flush and no FUA write follows. After a trim that failed, a sector is not judged until a crash.
 */
public final class HistoryChecker {
  /** Guards everything below. */
  private final ReentrantLock lock = new ReentrantLock();

  private final int sectors;
  private final Set<Level> levels;
  private final Sector.Limits limits;
  private final Consumer<Event> observer;
  private final Write contents;
  private final Map<Integer, Sector> written = new HashMap<>();
  private final Map<Integer, Request.Session> sessions = new HashMap<>();

  /** In the order in which they began. */
  private final SequencedSet<Read> reading = new LinkedHashSet<>();

  private Request.Flushed latest;
  private long now = 1;
  private long crashed;
  private long lastOperation;
  private long firstSerial;
  private long lastSerial;

  /** A write, zeroing or trim. */
  public static final class Write extends Request {
    long ended = NEVER;

    /** True if it was not durable when the server crashed, so that no read knows it. */
    boolean isLost;

    /** True if it was made before a crash if at all, so that later writes know it. */
    private boolean isOver;

    private Write(Event.Begin event, Session session, long began, Flushed flushed) {
      super(event, session, began, flushed);
    }

    /** Makes a write that is known to nothing that does not know two others. */
    static Write merged(Write one, Write other) {
      Event.Begin event = one.event.withoutFua();
      Write both = new Write(event, new Session(), one.began, one.flushed);
      both.ended = Math.max(one.ended, other.ended);
      both.isLost = one.isLost || other.isLost;
      both.isOver = one.isOver && other.isOver;
      return both;
    }

    /** Returns the value of the first sector, which no other write has; 0 if it is none. */
    public long value() {
      return event.value();
    }

    long valueIn(int sector) {
      return event.kind() == Step.Kind.WRITE ? event.value() + sector - event.sector() : 0;
    }

    boolean leavesAnything() {
      return event.kind() == Step.Kind.TRIM;
    }

    @Override
    boolean knows(Write write, Level level) {
      return write.ended < flushed.began()
          || (write.isOver && write.ended < began)
          || (!write.isLost && knowsWithoutFlush(write, level));
    }
  }

  /** A read in flight. */
  public static final class Read extends Request {
    private Read(Event.Begin event, Session session, long began, Flushed flushed) {
      super(event, session, began, flushed);
    }
  }

  /** A flush in flight. */
  public static final class Flush extends Request {
    private Flush(Event.Begin event, Session session, long began, Flushed flushed) {
      super(event, session, began, flushed);
    }
  }

  /** Judges the promise of multi-conn only, beginning with zeroes. */
  public HistoryChecker(int sectors) {
    this(new Event.Start(sectors, true), Set.of(Level.FLUSH), 0, event -> {});
  }

  /**
   * Judges some levels.
   *
   * @param start the number of sectors, and whether they are zeroes
   * @param levels to judge: FLUSH, or both
   * @param serial of the values of writes, which begin after this one; to tell them from those of
   *     other checkers
   * @param observer is told every event, in the order of time
   */
  public HistoryChecker(
      Event.Start start, Set<Level> levels, int serial, Consumer<Event> observer) {
    this(start, levels, serial, observer, Sector.LIMITS);
  }

  /** Judges some levels, and remembers fewer writes. */
  HistoryChecker(
      Event.Start start,
      Set<Level> levels,
      int serial,
      Consumer<Event> observer,
      Sector.Limits limits) {
    this.limits = limits;
    this.sectors = start.sectors();
    this.levels = Set.copyOf(levels);
    this.firstSerial = serial + 1L;
    this.lastSerial = serial;
    this.observer = observer;
    Request.Session nobodys = new Request.Session();
    Event.Begin flush = new Event.Begin(0, 0, Step.Kind.FLUSH, 0, 0, false, 0);
    this.latest = new Request.Flushed(flush, 1);
    Step.Kind kind = start.isZero() ? Step.Kind.ZERO : Step.Kind.TRIM;
    this.contents =
        new Write(
            new Event.Begin(0, 0, kind, 0, sectors, false, 0),
            nobodys,
            0,
            new Request.Flushed(flush, 0));
    contents.ended = 0;
    observer.accept(start);
  }

  private <T> T locked(Supplier<T> action) {
    lock.lock();
    try {
      now++;
      return action.get();
    } finally {
      lock.unlock();
    }
  }

  /** Reports that a write of one sector is about to be sent. */
  public Write beginWrite(int connection, int sector, boolean fua) {
    return beginWrite(connection, Step.Kind.WRITE, sector, 1, fua);
  }

  /** Reports that a WRITE, ZERO or TRIM is about to be sent. */
  public Write beginWrite(int connection, Step.Kind kind, int sector, int sectors, boolean fua) {
    return (Write) begin(connection, kind, sector, sectors, fua);
  }

  /** Reports that a read of one sector is about to be sent. */
  public Read beginRead(int connection, int sector) {
    return beginRead(connection, sector, 1);
  }

  /** Reports that a read is about to be sent. */
  public Read beginRead(int connection, int sector, int sectors) {
    return (Read) begin(connection, Step.Kind.READ, sector, sectors, false);
  }

  /** Reports that a flush is about to be sent. */
  public Flush beginFlush(int connection) {
    return (Flush) begin(connection, Step.Kind.FLUSH, 0, 0, false);
  }

  private Request begin(int connection, Step.Kind kind, int sector, int count, boolean fua) {
    return locked(
        () -> {
          long value = kind == Step.Kind.WRITE ? (lastSerial + 1) * sectors + sector : 0;
          return begun(
              new Event.Begin(lastOperation + 1, connection, kind, sector, count, fua, value));
        });
  }

  /** Reports that a request is about to be sent, with the number and value of the caller. */
  Request begin(Event.Begin event) {
    return locked(() -> begun(event));
  }

  private Request begun(Event.Begin event) {
    lastOperation = Math.max(lastOperation, event.operation());
    Request.Session session =
        sessions.computeIfAbsent(event.connection(), number -> new Request.Session());
    observer.accept(event);
    return switch (event.kind()) {
      case READ -> {
        Read read = new Read(event, session, now, latest);
        reading.add(read);
        yield read;
      }
      case FLUSH -> new Flush(event, session, now, latest);
      default -> {
        Write write = new Write(event, session, now, latest);
        if (event.kind() == Step.Kind.WRITE) {
          long serial = Math.floorDiv(event.value(), sectors);
          firstSerial = Math.min(firstSerial, serial);
          lastSerial = Math.max(lastSerial, serial);
        }
        for (int i = 0; i < event.sectors(); i++) {
          sector(event.sector() + i).begin(write, this::isKnownToAll);
        }
        yield write;
      }
    };
  }

  private Sector sector(int number) {
    return written.computeIfAbsent(number, key -> new Sector(number, contents, levels, limits));
  }

  /** Says whether every read in flight, and every later one, knows a write. */
  private boolean isKnownToAll(Write write) {
    long began = now;
    long flushed = latest.began();
    if (!reading.isEmpty()) {
      began = reading.getFirst().began;
      flushed = reading.getFirst().flushed.began();
    }
    return !write.isLost && (write.ended < flushed || (write.event.fua() && write.ended < began));
  }

  /** Reports the reply to a write. */
  public void endWrite(Write write, boolean succeeded) {
    locked(
        () -> {
          observer.accept(new Event.End(write.event.operation(), succeeded, List.of()));
          if (succeeded) {
            write.ended = Math.min(write.ended, now);
          } else {
            lost(write);
          }
          return write;
        });
  }

  /** Reports that an answered write may be lost: it may be seen, and need not be. */
  public void lose(Write write) {
    locked(
        () -> {
          lost(write);
          return write;
        });
  }

  private void lost(Write write) {
    if (!write.isLost) {
      boolean wasAnswered = write.ended != Request.NEVER;
      write.ended = Request.NEVER;
      for (int i = 0; i < write.event.sectors(); i++) {
        sector(write.event.sector() + i).lose(write, wasAnswered);
      }
    }
  }

  /** Reports the reply to a flush. */
  public void endFlush(Flush flush, boolean succeeded) {
    locked(
        () -> {
          observer.accept(new Event.End(flush.event.operation(), succeeded, List.of()));
          if (succeeded && flush.began > latest.began()) {
            latest = new Request.Flushed(flush.event, flush.began);
          }
          return flush;
        });
  }

  /** Reports that a read has failed, and so returned nothing. */
  public void failRead(Read read) {
    locked(
        () -> {
          observer.accept(new Event.End(read.event.operation(), false, List.of()));
          return reading.remove(read);
        });
  }

  /** Reports the value that a read of one sector has returned, and judges it. */
  public Optional<Violation> endRead(Read read, long value) {
    return endRead(read, List.of(List.of(value)));
  }

  /**
   * Reports what a read has returned, and judges it.
   *
   * @param data of each sector, the value or those of a mixture; see {@link Tags}
   * @return the violation of the weakest promise
   */
  public Optional<Violation> endRead(Read read, List<List<Long>> data) {
    return locked(
        () -> {
          observer.accept(new Event.End(read.event.operation(), true, data));
          reading.remove(read);
          Optional<Violation> worst = Optional.empty();
          for (int i = 0; i < data.size(); i++) {
            Optional<Violation> found = judge(read, read.event.sector() + i, data.get(i));
            if (worst.isEmpty()
                || found.filter(violation -> violation.level() == Level.FLUSH).isPresent()) {
              worst = found;
            }
          }
          return worst;
        });
  }

  private Optional<Violation> judge(Read read, int number, List<Long> values) {
    Sector sector = sector(number);
    return sector
        .judge(read, values)
        .map(
            level ->
                new Story(sector, read, level, crashed, value -> wasWritten(number, value))
                    .tell(values));
  }

  /** Says whether a value may be one that was written to a sector, at some time. */
  private boolean wasWritten(int sector, long value) {
    long serial = Math.floorDiv(value, sectors);
    return Math.floorMod(value, (long) sectors) == sector
        && serial >= firstSerial
        && serial <= lastSerial;
  }

  /** Reports that a connection has ended. Its number then stands for a new one. */
  public void close(int connection, boolean cut) {
    locked(
        () -> {
          observer.accept(new Event.Close(connection, cut));
          Request.Session session = sessions.remove(connection);
          if (session != null) {
            session.closed = now;
          }
          return connection;
        });
  }

  /**
   * Reports that the server has ended without a chance to write anything, before a new one is
   * started. No request in flight will be answered.
   */
  public void crash() {
    locked(
        () -> {
          observer.accept(new Event.Crash());
          crashed = now;
          reading.clear();
          sessions.values().forEach(session -> session.closed = now);
          sessions.clear();
          Event.Begin event = new Event.Begin(0, 0, Step.Kind.WRITE, 0, 1, false, 0);
          Write lost = new Write(event, new Request.Session(), now, latest);
          lost.ended = now;
          lost.isLost = true;
          lost.isOver = true;
          for (Sector sector : written.values()) {
            sector.slots(this::crash);
            sector.crash(lost, this::isKnownToAll);
          }
          return now;
        });
  }

  private boolean crash(Write write) {
    boolean isDurable =
        write.ended < latest.began() || (write.event.fua() && write.ended != Request.NEVER);
    if (!isDurable) {
      write.isLost = true;
      write.isOver = true;
      write.ended = Math.min(write.ended, now);
    }
    return isDurable;
  }
}
