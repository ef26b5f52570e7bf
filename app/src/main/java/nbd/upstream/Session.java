package nbd.upstream;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import java.util.function.Supplier;
import nbd.protocol.NbdError;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.threads.RangeLocks;
import nbd.upstream.Connections.Client;
import nbd.upstream.Connections.Conn;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * A session of all clients of one export with the server behind: the connections to it, and the log
 * of the writes that are at risk. It outlives its connections.
 *
 * <p><b>A request's way.</b> A write takes room in the log, then its range ({@link RangeLocks}),
 * and keeps both until it has ended, however often it is made ({@link Changes}). Any request then
 * enters a connection and is in flight until it leaves; before an answered write leaves, it is put
 * into the log. A request whose connection breaks leaves, and enters again when the session goes on
 * ({@link Requests}, {@link Tries}).
 *
 * <p><b>A break.</b> The first request that meets one pauses the session: no request enters any
 * more. A thread of its own waits until none is in flight, gives all connections up, connects
 * again, compares the export with what it was, makes all writes of the log again, in the order of
 * their answers, and flushes them ({@link Recovery}). Then the session goes on. So no client reads
 * from a new connection before everything that was answered is there again, and durable.
 *
 * <p><b>A loss.</b> If that fails, the session is lost: every request fails with a {@link
 * LostException}, and the next client begins another session.
 *
 * <p><b>Several connections.</b> Over a server that is multi-conn each client has one of its own
 * ({@link Joining}). Invariant: the connections on which a write of the log was made, or a write
 * whose answer waits to be taken, lead to one process of the server, to which every other one leads
 * as well or is broken; so a flush on one covers what was answered on any.
 *
 * <p><b>The lock</b> guards everything that is not final, the log and the connections; {@code
 * changed} is signalled whenever a waiting thread may go on. No call of a handle is made under it.
 *
 * <p><b>No circle.</b> A request that waits for room holds nothing; one that waits for a range
 * holds room; one that waits to enter holds room and a range; one in flight waits for the server
 * alone. The recovery waits for those in flight only, and takes neither room nor ranges.
 */
final class Session {
  /** Opens a connection. */
  @FunctionalInterface
  interface Opening {
    Handle open() throws IOException;
  }

  /**
   * The settings of a session.
   *
   * @param within the time for which it tries to connect again
   * @param logBytes the bytes that the log may hold; then the export is flushed
   * @param share whether to use one connection even where several could be
   * @param lossAtStop takes a description of what is lost since the server stops
   */
  record Settings(Duration within, long logBytes, boolean share, Consumer<String> lossAtStop) {}

  final String name;
  final Opening opening;
  final Settings settings;

  /** The export as it was when the session began. */
  final ExportFacts facts;

  /** True if all clients use one connection. */
  final boolean single;

  /** True if answered writes are kept until a flush has covered them. */
  final boolean keeps;

  final ReentrantLock lock = new ReentrantLock();
  final Condition changed = lock.newCondition();
  final WriteLog log;
  final RangeLocks ranges = new RangeLocks();
  final Connections conns = new Connections();

  /** The number of requests that have entered a connection and not left it. */
  int inFlight;

  /** Set while no request enters a connection. */
  boolean paused;

  /** Set while a request that is tried alone has the session, or waits for the others to leave. */
  boolean alone;

  /** The number of times that it has connected again. */
  long recoveries;

  volatile @Nullable LostException lost;

  /** Set when the server stops. */
  boolean stopping;

  /** Set when the last client has left. */
  boolean ending;

  /** The time of the first break since something was last answered, or given up. */
  OptionalLong troubleSince = OptionalLong.empty();

  final Requests requests = new Requests(this);
  final Changes changes = new Changes(this);
  final Replay replay = new Replay(this);

  private Session(String name, Opening opening, Settings settings, Handle first) {
    this.name = name;
    this.opening = opening;
    this.settings = settings;
    this.facts = first.facts();
    this.single = settings.share() || !first.capabilities().has(Capability.MULTI_CONN);
    // Without flushes nothing would ever leave the log; such storage promises nothing either.
    this.keeps = first.capabilities().has(Capability.FLUSH);
    this.log = new WriteLog(settings.logBytes());
    this.conns.addAll(List.of(new Conn(first)));
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

  /** Acts under the lock. */
  <T> T locked(Supplier<T> action) {
    lock.lock();
    try {
      return action.get();
    } finally {
      lock.unlock();
    }
  }

  /** Acts under the lock. */
  void locked(Runnable action) {
    lock.lock();
    try {
      action.run();
    } finally {
      lock.unlock();
    }
  }

  /** Says why it is lost; empty if it is not. */
  Optional<String> lost() {
    return Optional.ofNullable(lost).map(why -> String.valueOf(why.getMessage()));
  }

  /**
   * Lets a client come.
   *
   * @throws LostException if the session is lost
   * @throws IOException if no connection can be had
   */
  Client join() throws IOException {
    return new Joining(this).run();
  }

  /** Lets a client go; what it wrote stays at risk until a flush covers it. */
  void leave(Client client) {
    locked(() -> conns.leave(client)).ifPresent(conn -> close(conn.handle));
  }

  /**
   * Ends the session, when no client is left: flushes what is at risk.
   *
   * @throws IOException if that failed, or cannot be done since the server stops
   */
  void end() throws IOException {
    IOException failure = null;
    if (locked(() -> lost == null && !log.isEmpty())) {
      try {
        changes.flushUnasked(new Client());
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
      left = conns.retireAll();
    } finally {
      lock.unlock();
    }
    left.forEach(conn -> close(conn.handle));
    if (failure != null) {
      lose(new LostException(NbdError.EIO, String.valueOf(failure.getMessage())));
      throw failure;
    }
  }

  /** Connects no more: the server stops. */
  void stopWaiting() {
    locked(
        () -> {
          stopping = true;
          changed.signalAll();
        });
  }

  /** Ends the session though clients are left: the server ends. */
  void abandon() {
    stopWaiting();
    lose(new LostException(NbdError.ESHUTDOWN, "this server has ended"));
  }

  /**
   * Throws if the session is lost.
   *
   * @param hasWaited whether the request came before that
   */
  void throwIfLost(boolean hasWaited) throws LostException {
    LostException why = lost;
    if (why != null) {
      throw new LostException(
          hasWaited ? NbdError.EIO : NbdError.ESHUTDOWN, String.valueOf(why.getMessage()));
    }
  }

  /** Says whether requests enter connections without waiting. The lock is held. */
  boolean isGoingOn() {
    return !paused && !alone && lost == null;
  }

  /** Waits so long, or until the session ends or is lost. The lock is held. */
  void awaitStop(Duration time) {
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

  /** Pauses the session, unless it is: a request has met a break. The lock is held. */
  void pauseSince(Conn conn, LostException why) {
    if (conn.isRetired() || paused || lost != null) {
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
      Thread.ofVirtual().name("connect again").start(() -> new Recovery(this, why, since).run());
      started = true;
    } finally {
      if (!started) {
        lose(new LostException(NbdError.EIO, why.getMessage() + "; out of memory"));
      }
    }
  }

  /** Gives the session up; what is at risk is lost. */
  void lose(LostException why) {
    List<Conn> left;
    String atRisk;
    lock.lock();
    try {
      if (lost == null) {
        lost = why;
      }
      // First, and without memory: whatever fails below, no request waits any more.
      paused = false;
      changed.signalAll();
      atRisk = log.isEmpty() ? "" : log.describe();
      log.drop(log.mark());
      left = conns.retireAll();
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

  void close(Handle unused) {
    try {
      unused.close();
    } catch (IOException failure) {
      Logger.debug("{}: {}", name, failure.getMessage());
    }
  }
}
