package nbd.multiconn;

import java.io.IOException;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import nbd.filter.FilterHandle;
import nbd.protocol.CommandFlag;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import org.jspecify.annotations.Nullable;

/**
 * One connection's handle: marks what the connection reads and writes, and has the group do its
 * flushes. Marks allocate nothing unless an operation is begun.
 */
final class MultiConnHandle extends FilterHandle {
  /** Made while there is memory. */
  @SuppressWarnings("StaticAssignmentOfThrowable")
  private static final NbdException UNMARKED =
      new NbdException(NbdError.ENOMEM, "memory was short when the write had been made");

  private final Member member;
  private final Runnable afterClose;

  MultiConnHandle(Handle next, Member member, Runnable afterClose) {
    super(next, next.facts().with(member.decision.shown()));
    this.member = member;
    this.afterClose = afterClose;
  }

  @Override
  public Optional<Prefetch> prefetch() {
    return next.prefetch();
  }

  @Override
  public boolean takesPipes() {
    return next.takesPipes();
  }

  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    return switch (operation.command()) {
      case WRITE, TRIM, WRITE_ZEROES -> change(operation, patience, end);
      case FLUSH -> flush(operation, patience);
      default -> patience == Patience.LATER ? beginRead(operation, end) : read(operation, patience);
    };
  }

  /**
   * Reads. A READ that is sent straight to the client is not marked as one in flight: it lasts as
   * long as the client likes, and a client that does not take its replies must not hold up
   * everybody's flush. Its data is not kept, so that is safe. Data that is read ahead, and extents,
   * may grow old like data that is read.
   */
  private Outcome read(Operation operation, Patience patience) throws IOException {
    if (operation.isTransfer()) {
      member.markRead();
      return next.perform(operation, patience, Completion.NONE);
    }
    ReadMarks.Phase phase = member.beginRead();
    try {
      return next.perform(operation, patience, Completion.NONE);
    } finally {
      member.endRead(phase);
    }
  }

  private Outcome beginRead(Operation operation, Completion end) throws IOException {
    BegunRead read = new BegunRead(member, end);
    Outcome outcome = Outcome.DECLINED;
    try {
      outcome = next.perform(operation, Patience.LATER, read);
      return outcome;
    } finally {
      if (outcome != Outcome.BEGUN) {
        read.leave();
      }
    }
  }

  /** Makes or begins a change, which is marked before its end is told, and with it the client. */
  private Outcome change(Operation operation, Patience patience, Completion end)
      throws IOException {
    long openings = member.beginWrite();
    Completion marking =
        patience == Patience.LATER
            ? failure -> end.done(marked(operation, openings, failure))
            : end;
    Outcome outcome;
    try {
      outcome = next.perform(operation, patience, marking);
    } catch (IOException | RuntimeException | Error failure) {
      markFailed(operation, failure);
      throw failure;
    }
    if (outcome == Outcome.DONE) {
      mark(operation, openings);
    }
    return outcome;
  }

  /**
   * Marks a change that has succeeded. One with FUA is durable by itself, and where the backend is
   * multi-conn visible too.
   */
  private void mark(Operation operation, long openings) {
    if (operation.fua() && member.decision.sharesFlush()) {
      member.wroteThrough(openings);
    } else {
      member.wrote(openings);
    }
  }

  /** Marks a change that has failed, which may have changed something all the same. */
  private void markFailed(Operation operation, Throwable failure) {
    if (!changedNothing(operation, failure)) {
      member.mayHaveWritten();
    }
  }

  /**
   * Says whether a change that failed certainly did nothing that a flush could cover. The client of
   * a lost one was not told that it is done, and nothing can be done with its handle any more; and
   * a client that tries whether zeroing is fast does not pay with a flush if it is not.
   */
  private static boolean changedNothing(Operation operation, Throwable failure) {
    return failure instanceof LostException
        || (operation.flags().has(CommandFlag.FAST_ZERO)
            && failure instanceof NbdException refused
            && refused.error() == NbdError.ENOTSUP);
  }

  /** Marks a begun change that has ended, and gives the failure that its client is told. */
  private @Nullable IOException marked(
      Operation operation, long openings, @Nullable IOException failure) {
    try {
      if (failure == null) {
        mark(operation, openings);
      } else {
        markFailed(operation, failure);
      }
      return failure;
    } catch (RuntimeException | Error e) {
      // No flush might ever find it.
      return failure == null ? UNMARKED : failure;
    }
  }

  private Outcome flush(Operation operation, Patience patience) throws IOException {
    if (patience != Patience.WAIT) {
      return Outcome.DECLINED;
    }
    member.flush(operation.fua());
    return Outcome.DONE;
  }

  @Override
  public void close() throws IOException {
    try {
      member.close();
    } finally {
      afterClose.run();
    }
  }

  /**
   * A begun read in flight. It is counted down once, also where a failure in the middle of
   * beginning it is followed by its end: flushes wait for a count of zero.
   */
  private static final class BegunRead implements Completion {
    private static final AtomicIntegerFieldUpdater<BegunRead> LEFT =
        AtomicIntegerFieldUpdater.newUpdater(BegunRead.class, "left");

    private final Member member;
    private final ReadMarks.Phase phase;
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
}
