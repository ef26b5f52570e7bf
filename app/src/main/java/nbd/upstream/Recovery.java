package nbd.upstream;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;
import nbd.protocol.NbdError;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.Operation;
import nbd.upstream.Connections.Conn;
import org.tinylog.Logger;

/** The recovery of a paused {@link Session}: it connects again, or is lost. */
final class Recovery {
  private static final Duration FIRST_PAUSE = Duration.ofMillis(50);
  private static final Duration LONGEST_PAUSE = Duration.ofSeconds(1);

  private final Session session;
  private final LostException why;
  private final long since;

  /**
   * A recovery from a break.
   *
   * @param since when the trouble began, in nanoseconds
   */
  Recovery(Session session, LostException why, long since) {
    this.session = session;
    this.why = why;
    this.since = since;
  }

  /** Connects again, or gives the session up. */
  void run() {
    LostException failure = new LostException(NbdError.EIO, "a mistake in the server");
    boolean done = false;
    try {
      connectAgain();
      done = true;
    } catch (LostException gone) {
      failure = gone;
    } finally {
      if (!done) {
        session.lose(failure);
      }
    }
  }

  private void connectAgain() throws LostException {
    List<Conn> broken;
    List<Operation> answered;
    session.lock.lock();
    try {
      while (session.inFlight > 0) {
        session.changed.awaitUninterruptibly();
      }
      broken = session.conns.retireAll();
      answered = session.log.operations();
    } finally {
      session.lock.unlock();
    }
    Logger.warn("{}: connecting again, since {}", session.name, why.getMessage());
    long began = System.nanoTime();
    broken.forEach(conn -> session.close(conn.handle));
    List<Conn> made = new ArrayList<>();
    boolean goesOn = false;
    try {
      made.add(new Conn(reopen(answered)));
      while (made.size() < broken.size() && tryOpenAnother(made)) {
        // A client that gets no connection of its own shares one.
      }
      goesOn = session.locked(() -> tryGoOn(made, !answered.isEmpty()));
    } finally {
      if (!goesOn) {
        made.forEach(conn -> session.close(conn.handle));
      }
    }
    if (goesOn) {
      Logger.info(
          "{}: connected again after {} ms, {} pieces were written again",
          session.name,
          (System.nanoTime() - began) / 1_000_000,
          answered.size());
    }
  }

  /** Goes on with these connections, unless the session was lost meanwhile. */
  private boolean tryGoOn(List<Conn> made, boolean hasAnswered) {
    if (session.lost != null) {
      return false;
    }
    session.conns.addAll(made);
    session.log.drop(session.log.mark());
    session.recoveries++;
    session.paused = false;
    if (hasAnswered) {
      session.troubleSince = OptionalLong.empty();
    }
    session.changed.signalAll();
    return true;
  }

  private boolean tryOpenAnother(List<Conn> made) {
    try {
      Handle another = session.opening.open();
      if (another.facts().differenceTo(session.facts).isEmpty()) {
        made.add(new Conn(another));
        return true;
      }
      session.close(another);
    } catch (IOException failure) {
      Logger.debug("{}: {}", session.name, failure.getMessage());
    }
    return false;
  }

  /** Connects, until the server holds what was answered, or the time is over. */
  private Handle reopen(List<Operation> answered) throws LostException {
    Duration pause = FIRST_PAUSE;
    while (true) {
      IOException last;
      try {
        return session.replay.open(answered);
      } catch (Replay.ImpossibleException impossible) {
        throw new LostException(NbdError.EIO, why.getMessage() + "; " + impossible.getMessage());
      } catch (IOException failure) {
        last = failure;
      }
      Duration left = session.settings.within().minusNanos(System.nanoTime() - since);
      Duration next = shorter(pause, left);
      boolean stops =
          session.locked(
              () -> {
                boolean stopping = session.stopping || session.ending;
                if (!stopping) {
                  session.awaitStop(next);
                }
                return stopping;
              });
      if (stops || !left.isPositive()) {
        throw new LostException(
            NbdError.EIO,
            "%s; connecting again failed for %d ms%s, at last: %s"
                .formatted(
                    why.getMessage(),
                    (System.nanoTime() - since) / 1_000_000,
                    stops ? ", and the server stops" : "",
                    last.getMessage()));
      }
      Logger.debug("{}: connecting again: {}", session.name, last.getMessage());
      pause = shorter(pause.multipliedBy(2), LONGEST_PAUSE);
    }
  }

  private static Duration shorter(Duration one, Duration other) {
    return one.compareTo(other) < 0 ? one : other;
  }
}
