package nbd.multiconn;

import java.io.IOException;
import nbd.backend.Handle;
import nbd.backend.LostException;
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

  /** Whether flushes may still enter the handle. */
  boolean attached = true;

  /** How many flushes are in the handle. */
  int inside;

  /** How many writes the flush that runs now covers if it succeeds; -1 while none does. */
  long target = -1;

  /** Up to which of the group's losses this connection has been told. */
  long told;

  /** Why nothing can be done with the handle any more. */
  @Nullable LostException broken;

  /** Unsafe mode: how many writes had been completed when the last flush was passed on. */
  long passedOn;

  Member(Handle handle, Decision decision, FlushScope scope) {
    this.handle = handle;
    this.decision = decision;
    this.scope = scope;
  }

  /**
   * A read begins; {@link #endRead} ends it. The age is noted, and the handle enrolled, before the
   * read fetches anything: a flush that does not see it is over with its writes before.
   */
  int beginRead() {
    int phase = reads.enter();
    if (decision.tracksReads()) {
      if (reads.since(phase) == ReadMarks.NONE) {
        reads.note(phase, scope.age());
      }
      reads.enrolment.enrol(scope.group.readers, this);
    }
    return phase;
  }

  void endRead(int phase) {
    reads.leave(phase);
  }

  /** A read whose data the handle does not keep, but may have kept others' for. */
  void markRead() {
    endRead(beginRead());
  }

  /** A write is over, well or badly. */
  void wrote() {
    writes.count();
    if (decision.canFlush()) {
      writes.enrolment.enrol(scope.group.writers, this);
    }
  }

  /** A write is over that needs no flush of this scope, but outdates what others have read. */
  void wroteThrough() {
    if (decision.tracksReads()) {
      scope.group.lock.lock();
      try {
        scope.advance();
      } finally {
        scope.group.lock.unlock();
      }
    }
  }

  /**
   * What this connection's flush has to do.
   *
   * @throws IOException if a flush that it needed failed, or writes were lost before
   */
  void flush() throws IOException {
    new ClientFlush(this).run();
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
