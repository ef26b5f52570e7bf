package nbd.upstream;

import java.io.IOException;
import nbd.protocol.NbdError;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.upstream.Connections.Client;
import nbd.upstream.Connections.Conn;

/** The coming of a client to a {@link Session}: which connection it gets. */
final class Joining {
  private final Session session;

  Joining(Session session) {
    this.session = session;
  }

  /**
   * Lets a client join. Over a server that is multi-conn it gets a connection of its own. That may
   * lead to a server that was started again, while the others have yet to meet the break of theirs:
   * so if anything is at risk, or about to be, one of those is flushed first, which finds out.
   *
   * @throws LostException if the session is lost
   * @throws IOException if no connection can be had
   */
  Client run() throws IOException {
    Client client = new Client();
    // The first client takes the connection that the session began with.
    boolean joined = session.single || session.locked(() -> session.conns.tryIdle(client));
    while (!joined) {
      long seen = awaitGoingOn();
      Handle made = session.opening.open();
      try {
        flushBefore();
        if (made.facts().differenceTo(session.facts).isEmpty()) {
          joined = session.locked(() -> tryAdd(client, made, seen));
        } else {
          session.locked(this::suspectAll);
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

  /** Has all connections made again: the server shows another export now. The lock is held. */
  private void suspectAll() {
    if (!session.conns.isEmpty()) {
      session.pauseSince(
          session.conns.first(), new LostException(NbdError.EIO, "the export has changed"));
    }
  }

  /** Flushes also for a write in flight: its answer may have come, and not been taken yet. */
  private void flushBefore() throws IOException {
    Client visitor = new Client();
    boolean flushes =
        session.locked(
            () -> {
              if (session.log.isUnused() || session.conns.isEmpty()) {
                return false;
              }
              session.conns.use(session.conns.first(), visitor);
              return true;
            });
    if (flushes) {
      try {
        session.changes.flushUnasked(visitor);
      } finally {
        session.leave(visitor);
      }
    }
  }

  private boolean tryAdd(Client client, Handle made, long seen) {
    if (session.paused || session.lost != null || session.recoveries != seen) {
      return false;
    }
    session.conns.add(new Conn(made), client);
    return true;
  }
}
