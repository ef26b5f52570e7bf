package nbd.upstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.LostWritesException;
import nbd.upstream.Connections.Client;
import nbd.upstream.Connections.Conn;
import nbd.upstream.RangeLocks.Range;
import nbd.upstream.Requests.Beginning;
import nbd.upstream.Requests.Call;
import nbd.upstream.WriteLog.Kind;
import org.jspecify.annotations.Nullable;

/**
 * What the clients of a {@link Session} change, and the flushes that cover it: writes take room in
 * the log and their range, and what was answered is kept until a flush has covered it. The fields
 * are guarded by the session's lock.
 */
final class Changes {
  private final Session session;
  private boolean makingRoom;

  /** How a flush failed that no client asked for; the next one that a client asks for tells. */
  private @Nullable LostWritesException untold;

  Changes(Session session) {
    this.session = session;
  }

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
      if (kind == Kind.WRITE && session.keeps && !isDurable()) {
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
      if (!session.keeps || session.lost != null) {
        return;
      }
      if (isDurable()) {
        session.log.addDurable(range.start(), range.length());
        return;
      }
      session.log.add(
          kind, range.start(), range.length(), copy, flags.without(CommandFlag.FAST_ZERO));
      isLogged = true;
    }

    /** It has ended, well or badly: gives back what it holds. */
    void end() {
      session.lock.lock();
      try {
        if (session.keeps && !isLogged) {
          session.log.unreserve(dataBytes);
        }
        session.ranges.unlock(range);
        session.changed.signalAll();
      } finally {
        session.lock.unlock();
      }
    }
  }

  /**
   * Makes a change.
   *
   * @param data what is written; empty for a zeroing or trim
   * @param making makes it on a connection
   */
  void change(
      Client client, Kind kind, Range range, ByteBuffer data, CommandFlags flags, Call making)
      throws IOException {
    Change change = new Change(kind, range, data, flags, making);
    takeRoom(client, data.remaining());
    session.lock.lock();
    try {
      while (!session.ranges.tryLock(range)) {
        session.changed.awaitUninterruptibly();
      }
    } finally {
      session.lock.unlock();
    }
    try {
      change.copy(data);
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
  @Nullable Handle beginWrite(
      Client client,
      Range range,
      ByteBuffer data,
      CommandFlags flags,
      Beginning beginning,
      Call making,
      Completion end) {
    Change change = new Change(Kind.WRITE, range, data, flags, making);
    session.lock.lock();
    try {
      if (session.paused
          || session.alone
          || session.lost != null
          || !session.ranges.tryLock(range)) {
        return null;
      }
      if (session.keeps && !session.log.tryReserve(data.remaining())) {
        session.ranges.unlock(range);
        return null;
      }
    } finally {
      session.lock.unlock();
    }
    Handle begun = null;
    try {
      change.copy(data);
      begun =
          session.requests.begin(
              client,
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
  private void takeRoom(Client client, int dataBytes) throws IOException {
    while (session.keeps && !awaitRoom(dataBytes)) {
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
  private boolean awaitRoom(int dataBytes) throws LostException {
    session.lock.lock();
    try {
      while (!session.log.tryReserve(dataBytes)) {
        if (session.lost != null) {
          throw session.lostFor(NbdError.EIO);
        }
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
  private final class Flush implements Call {
    private long mark;

    @Override
    public void on(Handle handle) throws IOException {
      session.lock.lock();
      try {
        mark = session.log.mark();
      } finally {
        session.lock.unlock();
      }
      handle.flush();
    }

    @Override
    public void succeeded(Conn conn) {
      session.log.drop(mark);
      session.changed.signalAll();
    }
  }

  /** A client's flush. */
  void flush(Client client) throws IOException {
    session.requests.run(client, new Flush());
    LostWritesException told;
    session.lock.lock();
    try {
      told = untold;
      untold = null;
    } finally {
      session.lock.unlock();
    }
    if (told != null) {
      throw told;
    }
  }

  /**
   * A flush that no client has asked for. The server may tell of what it lost but once: if it tells
   * this one, the next that a client asks for fails.
   */
  void flushUnasked(Client client) throws IOException {
    try {
      session.requests.run(client, new Flush());
    } catch (LostException lostSession) {
      throw lostSession;
    } catch (IOException failure) {
      session.lock.lock();
      try {
        untold =
            new LostWritesException(
                String.valueOf(failure.getMessage()), LostWritesException.nextNumber());
      } finally {
        session.lock.unlock();
      }
      throw failure;
    }
  }
}
