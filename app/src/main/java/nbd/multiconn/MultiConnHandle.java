package nbd.multiconn;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import nbd.filter.FilterHandle;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capabilities;
import nbd.storage.Completion;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.ReadTarget;
import org.jspecify.annotations.Nullable;

/**
 * One connection's handle: marks what the connection reads and writes, and has the group do its
 * flushes. Marks take no lock and allocate nothing, on the fast path as on the ordinary one.
 */
final class MultiConnHandle extends FilterHandle {
  /** Made while there is memory. */
  @SuppressWarnings("StaticAssignmentOfThrowable")
  private static final NbdException UNMARKED =
      new NbdException(NbdError.ENOMEM, "memory was short when the write had been made");

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
    long openings = member.beginWrite();
    boolean written;
    try {
      written = next.writeNow(from, offset);
    } catch (IOException | RuntimeException | Error failure) {
      member.mayHaveWritten();
      throw failure;
    }
    if (written) {
      member.wrote(openings);
    }
    return written;
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
    long openings = member.beginWrite();
    try {
      change.make();
    } catch (IOException | RuntimeException | Error failure) {
      markFailed(flags, failure);
      throw failure;
    }
    mark(flags, openings);
  }

  /**
   * Marks a change that has succeeded. One with FUA is durable by itself, and where the backend is
   * multi-conn visible too.
   */
  private void mark(CommandFlags flags, long openings) {
    if (flags.has(CommandFlag.FUA) && member.decision.sharesFlush()) {
      member.wroteThrough(openings);
    } else {
      member.wrote(openings);
    }
  }

  /** A change that has failed may have changed something all the same. */
  private void markFailed(CommandFlags flags, Throwable failure) {
    if (!changedNothing(flags, failure)) {
      member.mayHaveWritten();
    }
  }

  /**
   * Whether a change that failed certainly did nothing that a flush could cover. Of one that was
   * lost nobody was told that it is done, and nothing can be done with its handle any more; and a
   * client that tries whether zeroing is fast does not pay with a flush if it is not.
   */
  private static boolean changedNothing(CommandFlags flags, Throwable failure) {
    return failure instanceof LostException
        || (flags.has(CommandFlag.FAST_ZERO)
            && failure instanceof NbdException refused
            && refused.error() == NbdError.ENOTSUP);
  }

  @Override
  public boolean beginRead(ByteBuffer into, long offset, Completion end) {
    BegunRead read = new BegunRead(member, end);
    boolean begun = false;
    try {
      begun = next.beginRead(into, offset, read);
      return begun;
    } finally {
      if (!begun) {
        read.leave();
      }
    }
  }

  /**
   * A read in flight. It is counted down once, also where a failure in the middle of beginning it
   * is followed by its end: flushes wait for a count of zero.
   */
  private static final class BegunRead implements Completion {
    private static final AtomicIntegerFieldUpdater<BegunRead> LEFT =
        AtomicIntegerFieldUpdater.newUpdater(BegunRead.class, "left");

    private final Member member;
    private final int phase;
    private final Completion end;

    @SuppressWarnings("UnusedVariable") // By its updater.
    private volatile int left;

    BegunRead(Member member, Completion end) {
      this.member = member;
      this.end = end;
      this.phase = member.beginRead();
    }

    void leave() {
      if (LEFT.compareAndSet(this, 0, 1)) {
        member.endRead(phase);
      }
    }

    @Override
    public void done(@Nullable IOException failure) {
      try {
        leave();
      } finally {
        end.done(failure);
      }
    }
  }

  /** Marked before the end is told, and with it the client. */
  @Override
  public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
    long openings = member.beginWrite();
    return next.beginWrite(
        from, offset, flags, failure -> end.done(marked(flags, openings, failure)));
  }

  /** Marks a begun change that has ended; answers what its client is told. */
  private @Nullable IOException marked(
      CommandFlags flags, long openings, @Nullable IOException failure) {
    try {
      if (failure == null) {
        mark(flags, openings);
      } else {
        markFailed(flags, failure);
      }
      return failure;
    } catch (RuntimeException | Error e) {
      // No flush might ever find it.
      return failure == null ? UNMARKED : failure;
    }
  }

  @Override
  public void flush() throws IOException {
    member.flush(false);
  }

  @Override
  public void flushForFua() throws IOException {
    member.flush(true);
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
