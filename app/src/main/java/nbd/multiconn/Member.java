package nbd.multiconn;

import java.io.IOException;
import nbd.storage.Handle;
import nbd.storage.Losses;
import nbd.storage.LostException;
import org.jspecify.annotations.Nullable;

/**
 * What the group knows of one connection's handle. The connection marks its reads and writes here,
 * without locks; everything else is guarded by the group's lock.
 */
final class Member {
  final Handle handle;
  final Decision decision;
  final FlushScope scope;
  final WriteMarks writes = new WriteMarks();
  final ReadMarks reads = new ReadMarks();

  /** Which opening of its scope it is, counted from 1 when it was done. */
  final long number;

  /** Whether flushes may still enter the handle. */
  boolean attached = true;

  /** How many flushes are in the handle. */
  int inside;

  /** How many writes the flush that runs now covers if it succeeds; -1 while none does. */
  long target = -1;

  /** The losses of the group that were reported to this connection. */
  final Losses.Position reported;

  /** Why nothing can be done with the handle any more. */
  @Nullable LostException broken;

  /** Unsafe mode: how many writes had been completed when the last flush was passed on. */
  long passedOn;

  /** A handle that is open; under the group's lock. */
  Member(Handle handle, Decision decision, FlushScope scope) {
    this.handle = handle;
    this.decision = decision;
    this.scope = scope;
    this.reported = scope.group.losses.join();
    this.number = scope.countOpening();
    writes.answered(number);
  }

  /**
   * A read begins; {@link #endRead} ends it. The age is noted, and the handle enrolled, before the
   * read fetches anything: a flush that does not see it is over with its writes before.
   */
  int beginRead() {
    int phase = reads.enter();
    boolean noted = false;
    try {
      if (decision.tracksReads()) {
        if (reads.since(phase) == ReadMarks.NONE) {
          reads.note(phase, scope.age());
        }
        reads.enrolment.enrol(scope.group.readers, this);
      }
      noted = true;
      return phase;
    } finally {
      if (!noted) {
        // Memory was short: there is no read, and no flush may wait for one.
        reads.leave(phase);
      }
    }
  }

  void endRead(int phase) {
    reads.leave(phase);
  }

  /** A read whose data the handle does not keep, but may have kept others' for. */
  void markRead() {
    endRead(beginRead());
  }

  /** A write begins. Answers what to tell at its end. */
  long beginWrite() {
    return scope.openings();
  }

  /**
   * A write has succeeded.
   *
   * @param openings what {@link #beginWrite} answered
   */
  void wrote(long openings) {
    writes.answered(openings);
    mayHaveWritten();
  }

  /** A write has failed, and may have changed something. */
  void mayHaveWritten() {
    writes.count();
    if (decision.canFlush()) {
      writes.enrolment.enrol(scope.group.writers, this);
    }
  }

  /** A write is over that needs no flush of this scope, but outdates what others have read. */
  void wroteThrough(long openings) {
    writes.answered(openings);
    if (decision.tracksReads()) {
      scope.advance();
    }
  }

  /** Whether a flush that another handle of the scope answers covers this one's writes. */
  boolean isProvenWith(Member other) {
    return writes.provenWith() >= other.number;
  }

  /**
   * What this connection's flush has to do.
   *
   * @param forFua whether it is for a command with FUA
   * @throws IOException if a flush that it needed failed, or writes were lost before
   */
  void flush(boolean forFua) throws IOException {
    new ClientFlush(this, forFua).run();
  }

  /** Leaves the group without having been used. */
  void abort() {
    scope.group.lock.lock();
    try {
      scope.group.detach(this);
    } finally {
      scope.group.lock.unlock();
    }
  }

  /**
   * Ends the handle: what it leaves behind is flushed first, if others rely on that.
   *
   * @throws IOException if that failed, or the handle's own end did
   */
  void close() throws IOException {
    new Departure(this).run();
  }
}
