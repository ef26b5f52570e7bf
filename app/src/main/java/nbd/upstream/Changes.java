package nbd.upstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.LostWritesException;
import nbd.storage.Operation;
import nbd.threads.RangeLocks.Turn;
import nbd.upstream.Connections.Client;
import nbd.upstream.Requests.Request;
import org.jspecify.annotations.Nullable;

/**
 * The writes, zeroings and trims of a {@link Session}'s clients, and the flushes that cover them. A
 * change takes room in the log and its range; when it has been answered, the log keeps it until a
 * flush has covered it. The fields are guarded by the session's lock.
 */
final class Changes {
  private final Session session;
  private boolean makingRoom;

  /** The failure of a flush that no client asked for; the next one that a client asks for tells. */
  private @Nullable LostWritesException untold;

  Changes(Session session) {
    this.session = session;
  }

  /** A change that has room in the log and its range, until its end. */
  private final class Change extends Request {
    private final Turn turn;

    /** The operation that the log is to keep. */
    private Operation again;

    private boolean isLogged;

    Change(Operation operation) {
      super(operation);
      turn = new Turn(operation.offset(), operation.offset() + operation.length());
      again = operation;
    }

    /** Copies the data for the log, when there is room for it. */
    void copyData() {
      if (session.keeps && !operation.fua() && operation.command() == Command.WRITE) {
        ByteBuffer data = operation.data();
        ByteBuffer copy = ByteBuffer.allocate(data.remaining()).put(data.duplicate()).flip();
        again = Operation.write(copy, operation.offset(), operation.flags());
      }
    }

    @Override
    void succeeded() {
      if (!session.keeps || session.lost != null) {
        return;
      }
      if (operation.fua()) {
        session.log.takeOut(operation);
      } else {
        session.log.add(again.with(again.flags().without(CommandFlag.FAST_ZERO)));
        isLogged = true;
      }
    }

    /** Gives back what it holds: it has ended, well or badly. */
    void end() {
      session.lock.lock();
      try {
        if (session.keeps && !isLogged) {
          session.log.unreserve(operation);
        }
        session.changed.signalAll();
      } finally {
        session.lock.unlock();
      }
      session.ranges.leave(turn);
    }
  }

  /** Makes a change. */
  void change(Client client, Operation operation) throws IOException {
    Change change = new Change(operation);
    takeRoom(client, operation);
    try {
      session.ranges.enter(change.turn);
      change.copyData();
      session.requests.run(client, change);
    } finally {
      change.end();
    }
  }

  /**
   * Begins a write, if neither room nor its range has to be waited for.
   *
   * @return as {@link Requests#begin}
   */
  @Nullable Handle begin(Client client, Operation operation, Completion end) {
    Change change = new Change(operation);
    session.lock.lock();
    try {
      if (!session.isGoingOn() || !session.ranges.tryEnter(change.turn)) {
        return null;
      }
      if (session.keeps && !session.log.tryReserve(operation)) {
        session.ranges.leave(change.turn);
        return null;
      }
    } finally {
      session.lock.unlock();
    }
    Handle begun = null;
    try {
      change.copyData();
      begun =
          session.requests.begin(
              client,
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

  /** Waits for room in the log; one flush makes room for all changes that wait. */
  private void takeRoom(Client client, Operation operation) throws IOException {
    while (session.keeps && !awaitRoom(operation)) {
      try {
        flushUnasked(client);
      } finally {
        session.lock.lock();
        try {
          makingRoom = false;
          session.changed.signalAll();
        } finally {
          session.lock.unlock();
        }
      }
    }
  }

  /** Takes room, or answers false if the caller is to make some by a flush. */
  private boolean awaitRoom(Operation operation) throws LostException {
    session.lock.lock();
    try {
      while (!session.log.tryReserve(operation)) {
        session.throwIfLost(true);
        if (!makingRoom && !session.log.isEmpty()) {
          makingRoom = true;
          return false;
        }
        session.changed.awaitUninterruptibly();
      }
      return true;
    } finally {
      session.lock.unlock();
    }
  }

  /** A flush, which covers what was answered before it started, on whichever connection. */
  private final class Flush extends Request {
    private long mark;

    Flush() {
      super(Operation.flush());
    }

    @Override
    void on(Handle handle) throws IOException {
      mark = session.locked(session.log::mark);
      super.on(handle);
    }

    @Override
    void succeeded() {
      session.log.drop(mark);
      session.changed.signalAll();
    }
  }

  /** Makes a client's flush. */
  void flush(Client client) throws IOException {
    session.requests.run(client, new Flush());
    LostWritesException told = setUntold(null);
    if (told != null) {
      throw told;
    }
  }

  private @Nullable LostWritesException setUntold(@Nullable LostWritesException failure) {
    session.lock.lock();
    try {
      LostWritesException before = untold;
      untold = failure;
      return before;
    } finally {
      session.lock.unlock();
    }
  }

  /**
   * Makes a flush that no client has asked for. The server may tell of what it lost but once: if it
   * tells this one, the next that a client asks for fails.
   */
  void flushUnasked(Client client) throws IOException {
    try {
      session.requests.run(client, new Flush());
    } catch (LostException lostSession) {
      throw lostSession;
    } catch (IOException failure) {
      setUntold(new LostWritesException(String.valueOf(failure.getMessage()), failure));
      throw failure;
    }
  }
}
