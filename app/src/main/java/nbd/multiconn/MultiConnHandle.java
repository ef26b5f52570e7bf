package nbd.multiconn;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import nbd.backend.Capabilities;
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

  /**
   * Makes a change, and marks it: one that failed too, since it may have changed something. Not
   * marked is what certainly changed nothing that a flush could cover. A change with FUA that
   * succeeded is durable by itself, and where the backend is multi-conn visible too.
   */
  private void marked(CommandFlags flags, Change change) throws IOException {
    boolean counts = true;
    boolean through = false;
    try {
      change.make();
      through = flags.has(CommandFlag.FUA) && member.decision.sharesFlush();
    } catch (LostException broken) {
      // Nobody was told that it is done, and nothing can be done with this handle any more.
      counts = false;
      throw broken;
    } catch (NbdException failure) {
      // A client that tries whether zeroing is fast does not pay with a flush if it is not.
      counts = !(flags.has(CommandFlag.FAST_ZERO) && failure.error() == NbdError.ENOTSUP);
      throw failure;
    } finally {
      if (through) {
        member.wroteThrough();
      } else if (counts) {
        member.wrote();
      }
    }
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
