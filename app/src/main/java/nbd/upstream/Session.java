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
 * What all clients of one export share with the server behind: the connections to it, and the log
 * of the writes that are at risk. It outlives its connections.
 *
 * <p><b>A request's way.</b> A write takes room in the log, then its range ({@link RangeLocks}),
 * and keeps both until it has ended, however often it is made. Any request then enters a connection
 * and is in flight until it leaves; before an answered write leaves, it is put into the log. A
 * request whose connection breaks leaves, and enters again when the session goes on ({@link
 * Tries}). {@link Changes} and {@link Requests} are that way.
 *
 * <p><b>A break.</b> The first request that meets one pauses the session: nobody enters any more. A
 * thread of its own waits until nothing is in flight, gives all connections up, connects again,
 * compares the export with what it was, makes all writes of the log again, in the order of their
 * answers, and flushes them. Then the session goes on. So nobody reads from a new connection before
 * everything that was answered is there again, and durable. {@link Recovery} does that.
 *
 * <p><b>A loss.</b> If that cannot be had, the session is lost: every request fails with a {@link
 * LostException}, and the next client begins another session.
 *
 * <p><b>Several connections.</b> Over a server that is multi-conn each client has one of its own.
 * Invariant: those on which something in the log was written, or an answer waits to be taken that
 * puts it there, lead to one process of the server, to which every other one leads as well or is
 * broken; so a flush on one covers what was answered on any. {@link Joining} sees to that.
 *
 * <p><b>The lock</b> guards everything that is not final, the log, the ranges and the connections;
 * {@code changed} is signalled whenever somebody may go on. No call of a handle is made under it.
 *
 * <p><b>No circle.</b> Who waits for room holds nothing; who waits for a range holds room; who
 * waits to enter holds room and a range; who is in flight waits for the server alone. The thread
 * that connects again waits for those in flight only, and takes neither room nor ranges.
 */
final class Session {
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

  final String name;
  final Opening opening;
  final Settings settings;

  /** The first connection's, for what is constant; closed after the first break. */
  final ExportFacts facts;

  /** Whether all clients use one connection. */
  final boolean single;

  /** Whether what is answered is kept until it is flushed. */
  final boolean keeps;

  final ReentrantLock lock = new ReentrantLock();
  final Condition changed = lock.newCondition();
  final WriteLog log;
  final RangeLocks ranges = new RangeLocks();
  final Connections conns = new Connections();

  /** How many requests have entered a connection and not left it. */
  int inFlight;

  /** Nobody enters a connection. */
  boolean paused;

  /** A request that is tried alone has the session, or waits until the others have left. */
  boolean alone;

  /** How often it has connected again. */
  long recoveries;

  volatile @Nullable LostException lost;

  /** The server stops. */
  boolean stopping;

  /** The last client has left. */
  boolean ending;

  /** When the first break was since something was last answered, or given up. */
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
    // What cannot be flushed is never covered by anything; its storage promises no more than that.
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

  /** Why it is lost; empty if it is not. */
  Optional<String> lost() {
    return Optional.ofNullable(lost).map(why -> String.valueOf(why.getMessage()));
  }

  /**
   * A client comes.
   *
   * @throws LostException if the session is lost
   * @throws IOException if there is no connection to be had
   */
  Client join() throws IOException {
    return new Joining(this).run();
  }

  /** Lets a client go; what it wrote stays at risk until a flush covers it. */
  void leave(Client client) {
    locked(() -> conns.leave(client)).ifPresent(conn -> close(conn.handle));
  }

  /**
   * Ends it, when no client is left: flushes what is at risk.
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

  /** The server ends, and clients are left. */
  void abandon() {
    stopWaiting();
    lose(new LostException(NbdError.ESHUTDOWN, "this server has ended"));
  }

  /**
   * Throws if it is lost.
   *
   * @param hasWaited whether the request came before
   */
  void throwIfLost(boolean hasWaited) throws LostException {
    LostException why = lost;
    if (why != null) {
      throw new LostException(
          hasWaited ? NbdError.EIO : NbdError.ESHUTDOWN, String.valueOf(why.getMessage()));
    }
  }

  /** Whether requests enter connections without waiting. The lock is held. */
  boolean isGoingOn() {
    return !paused && !alone && lost == null;
  }

  /** Waits so long, or until there is nothing to wait for. The lock is held. */
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

  /** A request has met the break of its connection: the first one pauses. The lock is held. */
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

  /** Nothing can be done any more; what is at risk is lost. */
  void lose(LostException why) {
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
