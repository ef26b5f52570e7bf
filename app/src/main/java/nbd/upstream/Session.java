package nbd.upstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import nbd.backend.Capabilities;
import nbd.backend.Capability;
import nbd.backend.Completion;
import nbd.backend.Handle;
import nbd.backend.LostException;
import nbd.backend.LostWritesException;
import nbd.protocol.BlockSizes;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.upstream.RangeLocks.Range;
import nbd.upstream.WriteLog.Kind;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * What all clients of one export share with the server behind: the connections to it, and the log
 * of the writes that are at risk. It outlives its connections.
 *
 * <p><b>A request's way.</b> A write takes room in the log, then its range ({@link RangeLocks}),
 * and keeps both until it has ended, however often it is made. Any request then enters a connection
 * and is in flight until it leaves; before an answered write leaves, it is put into the log. A
 * request whose connection breaks leaves, and enters again when the session goes on ({@link
 * Tries}).
 *
 * <p><b>A break.</b> The first request that meets one pauses the session: nobody enters any more. A
 * thread of its own waits until nothing is in flight, gives all connections up, connects again,
 * compares the export with what it was, makes all writes of the log again, in the order of their
 * answers, and flushes them. Then the session goes on. So nobody reads from a new connection before
 * everything that was answered is there again, and durable.
 *
 * <p><b>A loss.</b> If that cannot be had, the session is lost: every request fails with a {@link
 * LostException}, and the next client begins another session.
 *
 * <p><b>Several connections.</b> Over a server that is multi-conn each client has one of its own.
 * Invariant: those on which something in the log was written, or an answer waits to be taken that
 * puts it there, lead to one process of the server, to which every other one leads as well or is
 * broken; so a flush on one covers what was answered on any. {@link #join} sees to that.
 *
 * <p><b>No circle.</b> Who waits for room holds nothing; who waits for a range holds room; who
 * waits to enter holds room and a range; who is in flight waits for the server alone. The thread
 * that connects again waits for those in flight only, and takes neither room nor ranges.
 */
final class Session {
  private static final Duration FIRST_PAUSE = Duration.ofMillis(50);
  private static final Duration LONGEST_PAUSE = Duration.ofSeconds(1);

  /** Opens a connection. */
  @FunctionalInterface
  interface Opening {
    Handle open() throws IOException;
  }

  /**
   * How a session keeps itself.
   *
   * @param within how long to try to connect again
   * @param logBytes how much of what is at risk is kept; then it is flushed
   * @param share whether to use one connection even where several could be
   * @param lossAtStop told what is lost since the server stops, for people
   */
  record Settings(Duration within, long logBytes, boolean share, Consumer<String> lossAtStop) {}

  /** One connection. Guarded by the session's lock, but for the handle. */
  static final class Conn {
    final Handle handle;
    private boolean retired;
    private int users;

    private Conn(Handle handle) {
      this.handle = handle;
    }
  }

  /** One client's place; guarded by the session's lock. */
  static final class Seat {
    private @Nullable Conn conn;
  }

  /** A request. */
  interface Call {
    /** Makes it; called again, on another connection, if this one breaks. */
    void on(Handle handle) throws IOException;

    /** It has succeeded, and is still in flight; the session's lock is held. */
    default void succeeded(Conn conn) {}

    /** Whether it changes what is stored. */
    default boolean changes() {
      return false;
    }
  }

  /** Begins a request, as {@link Handle#beginRead} does. */
  @FunctionalInterface
  interface Beginning {
    boolean on(Handle handle, Completion end);
  }

  private final String name;
  private final Opening opening;
  private final Settings settings;

  /** The first connection's, for what is constant; closed after the first break. */
  private final Handle facts;

  private final Capabilities capabilities;
  private final boolean single;
  private final boolean keeps;

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final WriteLog log;
  private final RangeLocks ranges = new RangeLocks();

  /** Empty only while paused, or when lost. */
  private final List<Conn> conns = new ArrayList<>();

  private int inFlight;
  private boolean paused;

  /** A request that is tried alone has the session, or waits until the others have left. */
  private boolean alone;

  private boolean makingRoom;
  private long recoveries;
  private volatile @Nullable LostException lost;
  private boolean stopping;
  private boolean ending;

  /** When the first break was since something was last answered. */
  private OptionalLong troubleSince = OptionalLong.empty();

  /** How a flush failed that no client asked for; the next one that a client asks for tells. */
  private @Nullable LostWritesException untold;

  private Session(String name, Opening opening, Settings settings, Handle first) {
    this.name = name;
    this.opening = opening;
    this.settings = settings;
    this.facts = first;
    this.single = settings.share() || !first.capabilities().has(Capability.MULTI_CONN);
    // What cannot be flushed is never covered by anything; its storage promises no more than that.
    this.keeps = first.capabilities().has(Capability.FLUSH);
    this.capabilities = first.capabilities().with(Capability.MULTI_CONN);
    this.log = new WriteLog(settings.logBytes());
    this.conns.add(new Conn(first));
  }

  /**
   * Connects for the first time.
   *
   * @param name of the server and the export, for messages
   * @throws IOException if that fails; it is not tried again
   */
  static Session open(String name, Opening opening, Settings settings) throws IOException {
    return new Session(name, opening, settings, opening.open());
  }

  long size() {
    return facts.size();
  }

  BlockSizes blockSizes() {
    return facts.blockSizes();
  }

  String description() {
    return facts.description();
  }

  /** One flush covers all clients, whose reads see each other's writes. */
  Capabilities capabilities() {
    return capabilities;
  }

  /** Why it is lost; empty if it is not. */
  Optional<String> lost() {
    return Optional.ofNullable(lost).map(why -> String.valueOf(why.getMessage()));
  }

  // Clients come and go.

  /**
   * A client comes: over a server that is multi-conn it gets a connection of its own. That may lead
   * to a server that was started again, while the others have yet to meet the break of theirs: so
   * if anything is at risk, or about to be, one of those is flushed first, which finds out.
   *
   * @throws LostException if the session is lost
   * @throws IOException if there is no connection to be had
   */
  Seat join() throws IOException {
    Seat seat = new Seat();
    boolean joined = single || tryIdle(seat);
    while (!joined) {
      long seen = awaitGoingOn();
      Handle made = opening.open();
      try {
        flushBefore();
        if (difference(made).isEmpty()) {
          joined = tryAdd(seat, made, seen);
        } else {
          suspectAll();
        }
      } finally {
        if (!joined) {
          close(made);
        }
      }
    }
    return seat;
  }

  private long awaitGoingOn() throws LostException {
    lock.lock();
    try {
      while (paused && lost == null) {
        changed.awaitUninterruptibly();
      }
      if (lost != null) {
        throw lostFor(NbdError.ESHUTDOWN);
      }
      return recoveries;
    } finally {
      lock.unlock();
    }
  }

  /**
   * The server shows another export now: whether the others' connections still work is not sure.
   */
  private void suspectAll() {
    lock.lock();
    try {
      if (!conns.isEmpty()) {
        pauseSince(conns.getFirst(), new LostException(NbdError.EIO, "the export has changed"));
      }
    } finally {
      lock.unlock();
    }
  }

  /** Needed for a write in flight as well: its answer may have come, and not been taken yet. */
  private void flushBefore() throws IOException {
    Seat visitor = new Seat();
    lock.lock();
    try {
      if (log.isUnused() || conns.isEmpty()) {
        return;
      }
      Conn any = conns.getFirst();
      any.users++;
      visitor.conn = any;
    } finally {
      lock.unlock();
    }
    try {
      flushUnasked(visitor);
    } finally {
      leave(visitor);
    }
  }

  /** The first client takes the connection that the session began with. */
  private boolean tryIdle(Seat seat) {
    lock.lock();
    try {
      for (Conn conn : conns) {
        if (conn.users == 0) {
          conn.users++;
          seat.conn = conn;
          return true;
        }
      }
      return false;
    } finally {
      lock.unlock();
    }
  }

  private boolean tryAdd(Seat seat, Handle made, long seen) {
    lock.lock();
    try {
      if (paused || lost != null || recoveries != seen) {
        return false;
      }
      Conn conn = new Conn(made);
      conn.users = 1;
      seat.conn = conn;
      conns.add(conn);
      return true;
    } finally {
      lock.unlock();
    }
  }

  /** A client has gone; what it wrote stays at risk until a flush covers it. */
  void leave(Seat seat) {
    Conn unused = null;
    lock.lock();
    try {
      Conn conn = seat.conn;
      seat.conn = null;
      if (conn != null && !conn.retired) {
        conn.users--;
        if (conn.users == 0 && conns.size() > 1) {
          conns.remove(conn);
          conn.retired = true;
          unused = conn;
        }
      }
    } finally {
      lock.unlock();
    }
    if (unused != null) {
      close(unused.handle);
    }
  }

  /**
   * Ends it, when no client is left: flushes what is at risk.
   *
   * @throws IOException if that failed, or cannot be done since the server stops
   */
  void end() throws IOException {
    IOException failure = null;
    if (isAtRisk()) {
      try {
        flushUnasked(new Seat());
      } catch (IOException failed) {
        failure = failed;
      }
    }
    List<Conn> left;
    lock.lock();
    try {
      ending = true;
      changed.signalAll();
      while (paused) {
        changed.awaitUninterruptibly();
      }
      left = retireAll();
    } finally {
      lock.unlock();
    }
    left.forEach(conn -> close(conn.handle));
    if (failure != null) {
      lose(new LostException(NbdError.EIO, String.valueOf(failure.getMessage())));
      throw failure;
    }
  }

  private boolean isAtRisk() {
    lock.lock();
    try {
      return lost == null && !log.isEmpty();
    } finally {
      lock.unlock();
    }
  }

  /** The server stops: there will be no connecting again. */
  void stopWaiting() {
    lock.lock();
    try {
      stopping = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /** The server ends, and clients are left. */
  void abandon() {
    stopWaiting();
    lose(new LostException(NbdError.ESHUTDOWN, "this server has ended"));
  }

  // Requests.

  /** Makes a request, again after each break. */
  void run(Seat seat, Call call) throws IOException {
    run(seat, call, new Tries(settings.within()));
  }

  private void run(Seat seat, Call call, Tries tries) throws IOException {
    while (true) {
      Conn conn = enter(seat, tries);
      IOException failure = null;
      boolean ended = false;
      try {
        call.on(conn.handle);
        ended = true;
      } catch (IOException failed) {
        failure = failed;
        ended = true;
      } finally {
        if (!ended) {
          leaveUndone(tries);
        }
      }
      LostException broken = leave(conn, call, tries, failure);
      if (broken == null) {
        if (failure != null) {
          throw failure;
        }
        return;
      }
      tries.again(broken, call.changes());
      pauseFor(tries.pause());
    }
  }

  /** Waits until the session goes on, and enters the client's connection. */
  private Conn enter(Seat seat, Tries tries) throws LostException {
    lock.lock();
    try {
      boolean waited = tries.isRepeated();
      while (lost == null && (paused || alone)) {
        waited = true;
        changed.awaitUninterruptibly();
      }
      if (lost == null && tries.isSuspect()) {
        alone = true;
        tries.isAlone = true;
        while (lost == null && (paused || inFlight > 0)) {
          changed.awaitUninterruptibly();
        }
      }
      if (lost != null) {
        endAlone(tries);
        throw lostFor(waited ? NbdError.EIO : NbdError.ESHUTDOWN);
      }
      inFlight++;
      return connOf(seat);
    } finally {
      lock.unlock();
    }
  }

  private LostException lostFor(NbdError error) {
    LostException why = lost;
    return new LostException(error, why == null ? "" : String.valueOf(why.getMessage()));
  }

  /** The client's own connection; after a break the one that the fewest use. The lock is held. */
  private Conn connOf(Seat seat) {
    Conn own = seat.conn;
    if (own != null && !own.retired) {
      return own;
    }
    Conn least = conns.getFirst();
    for (Conn conn : conns) {
      least = conn.users < least.users ? conn : least;
    }
    least.users++;
    seat.conn = least;
    return least;
  }

  /**
   * A request leaves its connection.
   *
   * @param failure how it failed; null if it has succeeded
   * @return the break that it met, if it did: then it has not ended
   */
  private @Nullable LostException leave(
      Conn conn, Call call, Tries tries, @Nullable IOException failure) {
    LostException broken = failure == null ? null : breakOf(failure);
    lock.lock();
    try {
      if (failure == null) {
        call.succeeded(conn);
      }
      if (broken == null) {
        troubleSince = OptionalLong.empty();
      } else {
        pauseSince(conn, broken);
      }
      return broken;
    } finally {
      leaveUntried(tries);
      lock.unlock();
    }
  }

  /** A request leaves that was not begun, or that ended by a mistake. */
  private void leaveUndone(Tries tries) {
    lock.lock();
    try {
      leaveUntried(tries);
    } finally {
      lock.unlock();
    }
  }

  /** The lock is held. */
  private void leaveUntried(Tries tries) {
    inFlight--;
    endAlone(tries);
    if (inFlight == 0) {
      changed.signalAll();
    }
  }

  private void endAlone(Tries tries) {
    if (tries.isAlone) {
      tries.isAlone = false;
      alone = false;
      changed.signalAll();
    }
  }

  /** A server that stops answers what is in flight so, and may be back soon. */
  private static @Nullable LostException breakOf(IOException failure) {
    if (failure instanceof LostException broken) {
      return broken;
    }
    return failure instanceof NbdException refused && refused.error() == NbdError.ESHUTDOWN
        ? new LostException(NbdError.EIO, String.valueOf(refused.getMessage()))
        : null;
  }

  private void pauseFor(Duration time) {
    if (time.isZero()) {
      return;
    }
    lock.lock();
    try {
      awaitStop(time);
    } finally {
      lock.unlock();
    }
  }

  /** Waits so long, or until there is nothing to wait for. The lock is held. */
  private void awaitStop(Duration time) {
    long left = time.toNanos();
    while (left > 0 && !stopping && !ending && lost == null) {
      try {
        left = changed.awaitNanos(left);
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        return;
      }
    }
  }

  /**
   * Begins a request, without waiting for anything.
   *
   * @param again makes it in the ordinary way, if the connection breaks
   * @param end told by any thread
   * @return the handle on which it was begun; null if it was not
   */
  @Nullable Handle begin(Seat seat, Beginning beginning, Call again, Completion end) {
    Tries tries = new Tries(settings.within());
    Conn conn;
    lock.lock();
    try {
      if (paused || alone || lost != null) {
        return null;
      }
      inFlight++;
      conn = connOf(seat);
    } finally {
      lock.unlock();
    }
    boolean begun = false;
    try {
      begun = beginning.on(conn.handle, failure -> ended(seat, conn, again, tries, failure, end));
      return begun ? conn.handle : null;
    } finally {
      if (!begun) {
        leaveUndone(tries);
      }
    }
  }

  /** Told by the thread that reads the replies: it must not wait for one. */
  private void ended(
      Seat seat,
      Conn conn,
      Call again,
      Tries tries,
      @Nullable IOException failure,
      Completion end) {
    boolean goesOn = false;
    IOException outcome = failure;
    try {
      LostException broken = leave(conn, again, tries, failure);
      if (broken != null) {
        Thread.ofVirtual().name("again").start(() -> goOn(seat, again, tries, broken, end));
        goesOn = true;
      }
    } catch (RuntimeException | Error mistake) {
      outcome = new IOException("a mistake in the server: " + mistake, mistake);
    } finally {
      if (!goesOn) {
        end.done(outcome);
      }
    }
  }

  /** Makes a begun request whose connection broke in the ordinary way. */
  private void goOn(Seat seat, Call again, Tries tries, LostException broken, Completion end) {
    IOException outcome = new IOException("a mistake in the server");
    try {
      tries.again(broken, again.changes());
      run(seat, again, tries);
      outcome = null;
    } catch (IOException failed) {
      outcome = failed;
    } finally {
      end.done(outcome);
    }
  }

  // Writes and flushes.

  /** A write, zeroing or trim that has room in the log and its range, until its end. */
  private final class Change implements Call {
    private final Kind kind;
    private final Range range;
    private final int dataBytes;
    private final CommandFlags flags;
    private final Call making;
    private @Nullable ByteBuffer copy;
    private boolean isLogged;

    Change(Kind kind, Range range, ByteBuffer data, CommandFlags flags, Call making) {
      this.kind = kind;
      this.range = range;
      this.dataBytes = data.remaining();
      this.flags = flags;
      this.making = making;
    }

    /** Copies what the log is to keep, when there is room for it. */
    void copy(ByteBuffer data) {
      if (kind == Kind.WRITE && keeps && !isDurable()) {
        copy = ByteBuffer.allocate(dataBytes).put(data.duplicate()).flip();
      }
    }

    private boolean isDurable() {
      return flags.has(CommandFlag.FUA);
    }

    @Override
    public void on(Handle handle) throws IOException {
      making.on(handle);
    }

    @Override
    public boolean changes() {
      return true;
    }

    @Override
    public void succeeded(Conn conn) {
      if (!keeps || lost != null) {
        return;
      }
      if (isDurable()) {
        log.addDurable(range.start(), range.length());
        return;
      }
      log.add(kind, range.start(), range.length(), copy, flags.without(CommandFlag.FAST_ZERO));
      isLogged = true;
    }

    /** It has ended, well or badly: gives back what it holds. */
    void end() {
      lock.lock();
      try {
        if (keeps && !isLogged) {
          log.unreserve(dataBytes);
        }
        ranges.unlock(range);
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    }
  }

  /**
   * Makes a change.
   *
   * @param data what is written; empty for a zeroing or trim
   * @param making makes it on a connection
   */
  void change(Seat seat, Kind kind, Range range, ByteBuffer data, CommandFlags flags, Call making)
      throws IOException {
    Change change = new Change(kind, range, data, flags, making);
    takeRoom(seat, data.remaining());
    lock.lock();
    try {
      while (!ranges.tryLock(range)) {
        changed.awaitUninterruptibly();
      }
    } finally {
      lock.unlock();
    }
    try {
      change.copy(data);
      run(seat, change);
    } finally {
      change.end();
    }
  }

  /**
   * Begins a write, if neither room nor its range has to be waited for.
   *
   * @return as {@link #begin}
   */
  @Nullable Handle beginWrite(
      Seat seat,
      Range range,
      ByteBuffer data,
      CommandFlags flags,
      Beginning beginning,
      Call making,
      Completion end) {
    Change change = new Change(Kind.WRITE, range, data, flags, making);
    lock.lock();
    try {
      if (paused || alone || lost != null || !ranges.tryLock(range)) {
        return null;
      }
      if (keeps && !log.tryReserve(data.remaining())) {
        ranges.unlock(range);
        return null;
      }
    } finally {
      lock.unlock();
    }
    Handle begun = null;
    try {
      change.copy(data);
      begun =
          begin(
              seat,
              beginning,
              change,
              failure -> {
                change.end();
                end.done(failure);
              });
      return begun;
    } finally {
      if (begun == null) {
        change.end();
      }
    }
  }

  /** One flush makes room for all who want some. */
  private void takeRoom(Seat seat, int dataBytes) throws IOException {
    while (keeps && !awaitRoom(dataBytes)) {
      try {
        flushUnasked(seat);
      } finally {
        lock.lock();
        try {
          makingRoom = false;
          changed.signalAll();
        } finally {
          lock.unlock();
        }
      }
    }
  }

  /** Takes room, or answers false if the caller is to make some by a flush. */
  private boolean awaitRoom(int dataBytes) throws LostException {
    lock.lock();
    try {
      while (!log.tryReserve(dataBytes)) {
        if (lost != null) {
          throw lostFor(NbdError.EIO);
        }
        if (!makingRoom && !log.isEmpty()) {
          makingRoom = true;
          return false;
        }
        changed.awaitUninterruptibly();
      }
      return true;
    } finally {
      lock.unlock();
    }
  }

  /** A flush, which covers what was answered before it started, on whichever connection. */
  private final class Flush implements Call {
    private long mark;

    @Override
    public void on(Handle handle) throws IOException {
      lock.lock();
      try {
        mark = log.mark();
      } finally {
        lock.unlock();
      }
      handle.flush();
    }

    @Override
    public void succeeded(Conn conn) {
      log.drop(mark);
      changed.signalAll();
    }
  }

  /** A client's flush. */
  void flush(Seat seat) throws IOException {
    run(seat, new Flush());
    LostWritesException told;
    lock.lock();
    try {
      told = untold;
      untold = null;
    } finally {
      lock.unlock();
    }
    if (told != null) {
      throw told;
    }
  }

  /**
   * A flush that no client has asked for. The server may tell of what it lost but once: if it tells
   * this one, the next that a client asks for fails.
   */
  private void flushUnasked(Seat seat) throws IOException {
    try {
      run(seat, new Flush());
    } catch (LostException lostSession) {
      throw lostSession;
    } catch (IOException failure) {
      lock.lock();
      try {
        untold =
            new LostWritesException(
                String.valueOf(failure.getMessage()), LostWritesException.nextNumber());
      } finally {
        lock.unlock();
      }
      throw failure;
    }
  }

  // Breaks.

  /** A request has met the break of its connection: the first one pauses. The lock is held. */
  private void pauseSince(Conn conn, LostException why) {
    if (conn.retired || paused || lost != null) {
      return;
    }
    long now = System.nanoTime();
    if (troubleSince.isEmpty()) {
      troubleSince = OptionalLong.of(now);
    }
    long since = troubleSince.getAsLong();
    paused = true;
    boolean started = false;
    try {
      Thread.ofVirtual().name("connect again").start(() -> recover(why, since));
      started = true;
    } finally {
      if (!started) {
        lose(new LostException(NbdError.EIO, why.getMessage() + "; out of memory"));
      }
    }
  }

  private void recover(LostException why, long since) {
    LostException failure = new LostException(NbdError.EIO, "a mistake in the server");
    boolean done = false;
    try {
      connectAgain(why, since);
      done = true;
    } catch (LostException gone) {
      failure = gone;
    } finally {
      if (!done) {
        lose(failure);
      }
    }
  }

  private void connectAgain(LostException why, long since) throws LostException {
    List<Conn> broken;
    List<WriteLog.Entry> entries;
    lock.lock();
    try {
      while (inFlight > 0) {
        changed.awaitUninterruptibly();
      }
      broken = retireAll();
      entries = log.entries();
    } finally {
      lock.unlock();
    }
    Logger.warn("{}: connecting again, since {}", name, why.getMessage());
    long began = System.nanoTime();
    broken.forEach(conn -> close(conn.handle));
    List<Conn> made = new ArrayList<>();
    try {
      made.add(new Conn(reopen(entries, why, since)));
      while (made.size() < broken.size() && tryOpenAnother(made)) {
        // Whoever gets none of its own shares one with others.
      }
      if (!tryGoOn(made, !entries.isEmpty())) {
        return;
      }
      made = List.of();
    } finally {
      made.forEach(conn -> close(conn.handle));
    }
    Logger.info(
        "{}: connected again after {} ms, {} pieces were written again",
        name,
        (System.nanoTime() - began) / 1_000_000,
        entries.size());
  }

  /** Goes on with these connections, unless the session was lost meanwhile. */
  private boolean tryGoOn(List<Conn> made, boolean hasAnswered) {
    lock.lock();
    try {
      if (lost != null) {
        return false;
      }
      conns.addAll(made);
      log.drop(log.mark());
      recoveries++;
      paused = false;
      if (hasAnswered) {
        troubleSince = OptionalLong.empty();
      }
      changed.signalAll();
      return true;
    } finally {
      lock.unlock();
    }
  }

  /** Nobody enters these any more. The lock is held. */
  private List<Conn> retireAll() {
    List<Conn> all = List.copyOf(conns);
    conns.clear();
    all.forEach(conn -> conn.retired = true);
    return all;
  }

  private boolean tryOpenAnother(List<Conn> made) {
    try {
      Handle another = opening.open();
      if (difference(another).isEmpty()) {
        made.add(new Conn(another));
        return true;
      }
      close(another);
    } catch (IOException failure) {
      Logger.debug("{}: {}", name, failure.getMessage());
    }
    return false;
  }

  /** Connects, until it holds what was answered, or the time is over. */
  private Handle reopen(List<WriteLog.Entry> entries, LostException why, long since)
      throws LostException {
    Duration pause = FIRST_PAUSE;
    while (true) {
      IOException last;
      try {
        return reopenOnce(entries);
      } catch (ImpossibleException impossible) {
        throw new LostException(NbdError.EIO, why.getMessage() + "; " + impossible.getMessage());
      } catch (IOException failure) {
        last = failure;
      }
      Duration left = settings.within().minusNanos(System.nanoTime() - since);
      boolean end;
      lock.lock();
      try {
        end = stopping || ending;
        if (!end && left.isPositive()) {
          awaitStop(left.compareTo(pause) < 0 ? left : pause);
        }
      } finally {
        lock.unlock();
      }
      if (end || !left.isPositive()) {
        throw new LostException(
            NbdError.EIO,
            "%s; connecting again failed for %d ms%s, at last: %s"
                .formatted(
                    why.getMessage(),
                    (System.nanoTime() - since) / 1_000_000,
                    end ? ", and the server stops" : "",
                    last.getMessage()));
      }
      Logger.debug("{}: connecting again: {}", name, last.getMessage());
      pause =
          pause.multipliedBy(2).compareTo(LONGEST_PAUSE) < 0
              ? pause.multipliedBy(2)
              : LONGEST_PAUSE;
    }
  }

  /** It makes no sense to go on with what is there now, or to try again. */
  private static final class ImpossibleException extends IOException {
    private static final long serialVersionUID = 1;

    ImpossibleException(String message) {
      super(message);
    }
  }

  private Handle reopenOnce(List<WriteLog.Entry> entries) throws IOException {
    Handle made = opening.open();
    boolean done = false;
    try {
      String difference = difference(made);
      if (!difference.isEmpty()) {
        throw new ImpossibleException(difference);
      }
      for (WriteLog.Entry entry : entries) {
        writeAgain(made, entry);
      }
      if (!entries.isEmpty()) {
        flushAgain(made);
      }
      done = true;
      return made;
    } finally {
      if (!done) {
        close(made);
      }
    }
  }

  /** How the export differs from what it was; empty if it does not. */
  private String difference(Handle made) {
    if (made.size() != facts.size()) {
      return "it came back with %d bytes instead of %d".formatted(made.size(), facts.size());
    }
    return made.blockSizes().equals(facts.blockSizes())
            && made.capabilities().equals(facts.capabilities())
        ? ""
        : "it came back with other flags or block sizes";
  }

  private static void writeAgain(Handle made, WriteLog.Entry entry) throws IOException {
    try {
      switch (entry.kind()) {
        case WRITE -> made.write(entry.data().duplicate(), entry.offset(), entry.flags());
        case ZERO -> made.zero(entry.offset(), entry.length(), entry.flags());
        case TRIM -> made.trim(entry.offset(), entry.length(), entry.flags());
      }
    } catch (IOException failure) {
      LostException broken = breakOf(failure);
      if (broken != null && broken.mayStillHappen()) {
        throw new ImpossibleException(
            "what was answered is being written again, and the server, silent now, may do so over"
                + " newer data later: "
                + failure.getMessage());
      }
      if (broken != null) {
        throw broken;
      }
      // The contents of what was trimmed are undefined anyway.
      if (entry.kind() != Kind.TRIM) {
        throw new ImpossibleException(
            "what was answered cannot be written again: " + failure.getMessage());
      }
    }
  }

  private static void flushAgain(Handle made) throws IOException {
    try {
      made.flush();
    } catch (IOException failure) {
      LostException broken = breakOf(failure);
      throw broken != null
          ? broken
          : new ImpossibleException(
              "what was written again cannot be flushed: " + failure.getMessage());
    }
  }

  /** Nothing can be done any more; what is at risk is lost. */
  private void lose(LostException why) {
    List<Conn> left;
    String atRisk;
    lock.lock();
    try {
      if (lost == null) {
        lost = why;
      }
      // First, and without memory: whatever fails below, nobody waits any more.
      paused = false;
      changed.signalAll();
      atRisk = log.isEmpty() ? "" : log.describe();
      log.drop(log.mark());
      left = retireAll();
      if (!atRisk.isEmpty() && stopping) {
        settings.lossAtStop().accept("%s: %s".formatted(name, atRisk));
      }
    } finally {
      lock.unlock();
    }
    left.forEach(conn -> close(conn.handle));
    if (atRisk.isEmpty()) {
      Logger.warn("{}: {}", name, why.getMessage());
    } else {
      Logger.error(
          "{}: {} that were answered and not flushed are lost: {}", name, atRisk, why.getMessage());
    }
  }

  private void close(Handle unused) {
    try {
      unused.close();
    } catch (IOException failure) {
      Logger.debug("{}: {}", name, failure.getMessage());
    }
  }
}
