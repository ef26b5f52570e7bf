package nbd.upstream;

import java.io.IOException;
import java.util.OptionalLong;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.Operation;
import nbd.upstream.Connections.Client;
import nbd.upstream.Connections.Conn;
import org.jspecify.annotations.Nullable;

/**
 * The way of requests through a {@link Session}: each enters a connection, is in flight, and
 * leaves, and if the connection has broken, enters again.
 */
final class Requests {
  /** Made while there is memory. */
  @SuppressWarnings("StaticAssignmentOfThrowable")
  private static final NbdException UNKEPT =
      new NbdException(NbdError.ENOMEM, "memory was short when a request had been made");

  private final Session session;

  Requests(Session session) {
    this.session = session;
  }

  /** A client's operation, which is made again on another connection if one breaks. */
  static class Request {
    final Operation operation;
    private final Tries tries = new Tries();

    Request(Operation operation) {
      this.operation = operation;
    }

    /** Makes it. */
    void on(Handle handle) throws IOException {
      Operation made = operation.copy();
      handle.run(made);
      operation.answer(made.extents());
    }

    /** Notes that it has succeeded, while it is in flight; the session's lock is held. */
    void succeeded() {
      // Only a change and a flush have anything to note.
    }
  }

  /** Makes a request, again after each break. */
  void run(Client client, Request request) throws IOException {
    while (true) {
      Conn conn = enter(client, request.tries);
      IOException failure = null;
      boolean ended = false;
      try {
        request.on(conn.handle);
        ended = true;
      } catch (IOException failed) {
        failure = failed;
        ended = true;
      } finally {
        if (!ended) {
          leaveUndone(request.tries);
        }
      }
      LostException broken = leave(conn, request, failure);
      if (broken == null) {
        if (failure != null) {
          throw failure;
        }
        return;
      }
      again(request, broken);
      session.locked(() -> session.awaitStop(request.tries.pause()));
    }
  }

  /** Throws if a request is not made again; its trouble is over then. */
  private void again(Request request, LostException broken) throws NbdException {
    boolean goesOn = false;
    try {
      boolean changes = request.operation.command().writes();
      request.tries.again(broken, changes, session.settings.within());
      goesOn = true;
    } finally {
      if (!goesOn) {
        session.locked(() -> session.troubleSince = OptionalLong.empty());
      }
    }
  }

  /** Waits until the session goes on, and enters the client's connection. */
  private Conn enter(Client client, Tries tries) throws LostException {
    session.lock.lock();
    try {
      boolean waited = tries.isRepeated();
      while (session.lost == null && (session.paused || session.alone)) {
        waited = true;
        session.changed.awaitUninterruptibly();
      }
      if (session.lost == null && tries.isSuspect()) {
        session.alone = true;
        tries.isAlone = true;
        while (session.lost == null && (session.paused || session.inFlight > 0)) {
          session.changed.awaitUninterruptibly();
        }
      }
      if (session.lost != null) {
        endAlone(tries);
        session.throwIfLost(waited);
      }
      session.inFlight++;
      return session.conns.of(client);
    } finally {
      session.lock.unlock();
    }
  }

  /**
   * Lets a request leave its connection.
   *
   * @param failure how it failed; null if it has succeeded
   * @return the break that it met, if it did: then it has not ended
   */
  private @Nullable LostException leave(Conn conn, Request request, @Nullable IOException failure) {
    LostException broken = failure == null ? null : Replay.breakOf(failure);
    session.lock.lock();
    try {
      if (failure == null) {
        request.succeeded();
      }
      if (broken == null) {
        session.troubleSince = OptionalLong.empty();
      } else {
        session.pauseSince(conn, broken);
      }
      return broken;
    } finally {
      leaveUntried(request.tries);
      session.lock.unlock();
    }
  }

  /** Lets a request leave that was not begun, or that ended by a mistake. */
  private void leaveUndone(Tries tries) {
    // Without memory: the recovery waits for it.
    session.lock.lock();
    try {
      leaveUntried(tries);
    } finally {
      session.lock.unlock();
    }
  }

  /** Lets a request leave; the lock is held. */
  private void leaveUntried(Tries tries) {
    session.inFlight--;
    endAlone(tries);
    if (session.inFlight == 0) {
      session.changed.signalAll();
    }
  }

  private void endAlone(Tries tries) {
    if (tries.isAlone) {
      tries.isAlone = false;
      session.alone = false;
      session.changed.signalAll();
    }
  }

  /**
   * Begins a request, without waiting for anything.
   *
   * @param end told by any thread
   * @return the handle on which it was begun; null if it was not
   */
  @Nullable Handle begin(Client client, Request request, Completion end) {
    Conn conn;
    session.lock.lock();
    try {
      if (!session.isGoingOn()) {
        return null;
      }
      session.inFlight++;
      conn = session.conns.of(client);
    } finally {
      session.lock.unlock();
    }
    boolean begun = false;
    try {
      begun =
          conn.handle.begin(
              request.operation, failure -> ended(client, conn, request, failure, end));
      return begun ? conn.handle : null;
    } catch (IOException failure) {
      // Made in the ordinary way, it is made again, or fails with the reason.
      return null;
    } finally {
      if (!begun) {
        leaveUndone(request.tries);
      }
    }
  }

  /** Takes a request's end from the thread that reads the replies: it must not wait for one. */
  private void ended(
      Client client, Conn conn, Request request, @Nullable IOException failure, Completion end) {
    boolean goesOn = false;
    IOException outcome = UNKEPT;
    try {
      LostException broken = leave(conn, request, failure);
      if (broken == null) {
        outcome = failure;
      } else {
        Thread.ofVirtual().name("again").start(() -> goOn(client, request, broken, end));
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

  /** Makes a begun request, whose connection broke, in the ordinary way. */
  private void goOn(Client client, Request request, LostException broken, Completion end) {
    IOException outcome = broken;
    try {
      again(request, broken);
      run(client, request);
      outcome = null;
    } catch (IOException failed) {
      outcome = failed;
    } finally {
      end.done(outcome);
    }
  }
}
