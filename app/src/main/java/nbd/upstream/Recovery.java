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

/** A break of a {@link Session}: everybody waits, and it connects again, or is lost. */
final class Recovery {
  private static final Duration FIRST_PAUSE = Duration.ofMillis(50);
  private static final Duration LONGEST_PAUSE = Duration.ofSeconds(1);

  private final Session session;

  Recovery(Session session) {
    this.session = session;
  }

  /**
   * Connects again, or gives the session up.
   *
   * @param since when the trouble began, in nanoseconds
   */
  void run(LostException why, long since) {
    LostException failure = new LostException(NbdError.EIO, "a mistake in the server");
    boolean done = false;
    try {
      connectAgain(why, since);
      done = true;
    } catch (LostException gone) {
      failure = gone;
    } finally {
      if (!done) {
        session.lose(failure);
      }
    }
  }

  private void connectAgain(LostException why, long since) throws LostException {
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
    try {
      made.add(new Conn(reopen(answered, why, since)));
      while (made.size() < broken.size() && tryOpenAnother(made)) {
        // Whoever gets none of its own shares one with others.
      }
      if (!tryGoOn(made, !answered.isEmpty())) {
        return;
      }
      made = List.of();
    } finally {
      made.forEach(conn -> session.close(conn.handle));
    }
    Logger.info(
        "{}: connected again after {} ms, {} pieces were written again",
        session.name,
        (System.nanoTime() - began) / 1_000_000,
        answered.size());
  }

  /** Goes on with these connections, unless the session was lost meanwhile. */
  private boolean tryGoOn(List<Conn> made, boolean hasAnswered) {
    session.lock.lock();
    try {
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
    } finally {
      session.lock.unlock();
    }
  }

  private boolean tryOpenAnother(List<Conn> made) {
    try {
      Handle another = session.opening.open();
      if (session.replay.difference(another).isEmpty()) {
        made.add(new Conn(another));
        return true;
      }
      session.close(another);
    } catch (IOException failure) {
      Logger.debug("{}: {}", session.name, failure.getMessage());
    }
    return false;
  }

  /** Connects, until it holds what was answered, or the time is over. */
  private Handle reopen(List<Operation> answered, LostException why, long since)
      throws LostException {
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
      boolean end;
      session.lock.lock();
      try {
        end = session.stopping || session.ending;
        if (!end && left.isPositive()) {
          session.awaitStop(left.compareTo(pause) < 0 ? left : pause);
        }
      } finally {
        session.lock.unlock();
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
      Logger.debug("{}: connecting again: {}", session.name, last.getMessage());
      pause =
          pause.multipliedBy(2).compareTo(LONGEST_PAUSE) < 0
              ? pause.multipliedBy(2)
              : LONGEST_PAUSE;
    }
  }
}
