package nbd.upstream;

import java.io.IOException;
import nbd.protocol.NbdError;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.upstream.Connections.Client;
import nbd.upstream.Connections.Conn;

/** A client that comes to a {@link Session}, and the connection that it is given. */
final class Joining {
  private final Session session;

  Joining(Session session) {
    this.session = session;
  }

  /**
   * Gives the client its place: over a server that is multi-conn it gets a connection of its own.
   * That may lead to a server that was started again, while the others have yet to meet the break
   * of theirs: so if anything is at risk, or about to be, one of those is flushed first, which
   * finds out.
   *
   * @throws LostException if the session is lost
   * @throws IOException if there is no connection to be had
   */
  Client run() throws IOException {
    Client client = new Client();
    boolean joined = session.single || tryIdle(client);
    while (!joined) {
      long seen = awaitGoingOn();
      Handle made = session.opening.open();
      try {
        flushBefore();
        if (session.replay.difference(made).isEmpty()) {
          joined = tryAdd(client, made, seen);
        } else {
          suspectAll();
        }
      } finally {
        if (!joined) {
          session.close(made);
        }
      }
    }
    return client;
  }

  private long awaitGoingOn() throws LostException {
    session.lock.lock();
    try {
      while (session.paused && session.lost == null) {
        session.changed.awaitUninterruptibly();
      }
      session.throwIfLost(false);
      return session.recoveries;
    } finally {
      session.lock.unlock();
    }
  }

  /**
   * The server shows another export now: whether the others' connections still work is not sure.
   */
  private void suspectAll() {
    session.lock.lock();
    try {
      if (!session.conns.isEmpty()) {
        session.pauseSince(
            session.conns.first(), new LostException(NbdError.EIO, "the export has changed"));
      }
    } finally {
      session.lock.unlock();
    }
  }

  /** Needed for a write in flight as well: its answer may have come, and not been taken yet. */
  private void flushBefore() throws IOException {
    Client visitor = new Client();
    session.lock.lock();
    try {
      if (session.log.isUnused() || session.conns.isEmpty()) {
        return;
      }
      session.conns.use(session.conns.first(), visitor);
    } finally {
      session.lock.unlock();
    }
    try {
      session.changes.flushUnasked(visitor);
    } finally {
      session.leave(visitor);
    }
  }

  /** The first client takes the connection that the session began with. */
  private boolean tryIdle(Client client) {
    session.lock.lock();
    try {
      return session.conns.tryIdle(client);
    } finally {
      session.lock.unlock();
    }
  }

  private boolean tryAdd(Client client, Handle made, long seen) {
    session.lock.lock();
    try {
      if (session.paused || session.lost != null || session.recoveries != seen) {
        return false;
      }
      session.conns.add(new Conn(made), client);
      return true;
    } finally {
      session.lock.unlock();
    }
  }
}
