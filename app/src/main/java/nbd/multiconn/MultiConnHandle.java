package nbd.multiconn;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import nbd.backend.Capabilities;
import nbd.backend.Completion;
import nbd.backend.Extent;
import nbd.backend.Handle;
import nbd.backend.LostException;
import nbd.backend.ReadTarget;
import nbd.filter.FilterHandle;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;

/**
 * One connection's handle: marks what the connection reads and writes, and has the group do its
 * flushes. Marks take no lock and allocate nothing, on the fast path as on the ordinary one.
 */
final class MultiConnHandle extends FilterHandle {
  private final Member member;
  private final Runnable afterClose;

  MultiConnHandle(Handle next, Member member, Runnable afterClose) {
    super(next);
    this.member = member;
    this.afterClose = afterClose;
  }

  @Override
  public Capabilities capabilities() {
    return member.decision.shown();
  }

  @Override
  public void read(ByteBuffer into, long offset) throws IOException {
    int phase = member.beginRead();
    try {
      next.read(into, offset);
    } finally {
      member.endRead(phase);
    }
  }

  @Override
  public boolean readNow(ByteBuffer into, long offset) throws IOException {
    int phase = member.beginRead();
    try {
      return next.readNow(into, offset);
    } finally {
      member.endRead(phase);
    }
  }

  /**
   * Marked as a read, but not as one in flight: it lasts as long as the client likes, and a client
   * that does not read its replies must not hold up everybody's flush. What is sent this way is not
   * kept, so that is safe.
   */
  @Override
  public boolean transferNow(long offset, long length, ReadTarget to) throws IOException {
    member.markRead();
    return next.transferNow(offset, length, to);
  }

  /** Data that is read ahead may grow old like data that is read. */
  @Override
  public void cache(long offset, long length) throws IOException {
    int phase = member.beginRead();
    try {
      next.cache(offset, length);
    } finally {
      member.endRead(phase);
    }
  }

  @Override
  public List<Extent> extents(long offset, long length, int most) throws IOException {
    int phase = member.beginRead();
    try {
      return next.extents(offset, length, most);
    } finally {
      member.endRead(phase);
    }
  }

  @Override
  public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    marked(flags, () -> next.write(from, offset, flags));
  }

  @Override
  public boolean writeNow(ByteBuffer from, long offset) throws IOException {
    boolean untouched = false;
    try {
      untouched = !next.writeNow(from, offset);
      return !untouched;
    } finally {
      if (!untouched) {
        member.wrote();
      }
    }
  }

  @Override
  public boolean fuaIsQuick() {
    return next.fuaIsQuick();
  }

  @Override
  public void trim(long offset, long length, CommandFlags flags) throws IOException {
    marked(flags, () -> next.trim(offset, length, flags));
  }

  @Override
  public void zero(long offset, long length, CommandFlags flags) throws IOException {
    marked(flags, () -> next.zero(offset, length, flags));
  }

  /** A call that changes something. */
  @FunctionalInterface
  private interface Change {
    void make() throws IOException;
  }

  /** Makes a change, and marks it. */
  private void marked(CommandFlags flags, Change change) throws IOException {
    boolean succeeded = false;
    boolean untouched = false;
    try {
      change.make();
      succeeded = true;
    } catch (IOException failure) {
      untouched = changedNothing(flags, failure);
      throw failure;
    } finally {
      mark(flags, succeeded, untouched);
    }
  }

  /**
   * Marks a change that is over: one that failed too, since it may have changed something. One with
   * FUA that succeeded is durable by itself, and where the backend is multi-conn visible too.
   */
  private void mark(CommandFlags flags, boolean succeeded, boolean untouched) {
    if (succeeded && flags.has(CommandFlag.FUA) && member.decision.sharesFlush()) {
      member.wroteThrough();
    } else if (!untouched) {
      member.wrote();
    }
  }

  /**
   * Whether a change that failed certainly did nothing that a flush could cover. Of one that was
   * lost nobody was told that it is done, and nothing can be done with its handle any more; and a
   * client that tries whether zeroing is fast does not pay with a flush if it is not.
   */
  private static boolean changedNothing(CommandFlags flags, IOException failure) {
    return failure instanceof LostException
        || (flags.has(CommandFlag.FAST_ZERO)
            && failure instanceof NbdException refused
            && refused.error() == NbdError.ENOTSUP);
  }

  @Override
  public boolean beginRead(ByteBuffer into, long offset, Completion end) {
    int phase = member.beginRead();
    boolean begun = false;
    try {
      begun =
          next.beginRead(
              into,
              offset,
              failure -> {
                member.endRead(phase);
                end.done(failure);
              });
      return begun;
    } finally {
      if (!begun) {
        member.endRead(phase);
      }
    }
  }

  /** Marked before the end is told, and with it the client. */
  @Override
  public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
    return next.beginWrite(
        from,
        offset,
        flags,
        failure -> {
          mark(flags, failure == null, failure != null && changedNothing(flags, failure));
          end.done(failure);
        });
  }

  @Override
  public void flush() throws IOException {
    member.flush();
  }

  @Override
  public void close() throws IOException {
    try {
      member.close();
    } finally {
      afterClose.run();
    }
  }
}
