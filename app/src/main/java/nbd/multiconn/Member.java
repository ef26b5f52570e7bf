package nbd.multiconn;

import java.io.IOException;
import nbd.storage.Handle;
import nbd.storage.Losses;
import nbd.storage.LostException;
import org.jspecify.annotations.Nullable;

/**
 * The group's record of one connection's handle. The connection marks its reads and writes here,
 * without a lock; everything else is guarded by the group's lock.
 */
final class Member {
  final Handle handle;
  final Decision decision;
  final FlushScope scope;
  final WriteMarks writes = new WriteMarks();
  final ReadMarks reads = new ReadMarks();

  /** The position among the openings of its scope, which are counted from 1 when they are done. */
  final long number;

  /** True while flushes may enter the handle. */
  boolean attached = true;

  /** The number of flushes that are in the handle. */
  int inside;

  /** The losses of the group that were reported to this connection. */
  final Losses.Position reported;

  /** The reason why the handle is broken for good; null while it is not known to be. */
  @Nullable LostException broken;

  /** Unsafe mode: the number of completed writes when a flush was last passed on. */
  long passedOn;

  /** Makes the record of an open handle; called under the group's lock. */
  Member(Handle handle, Decision decision, FlushScope scope) {
    this.handle = handle;
    this.decision = decision;
    this.scope = scope;
    this.reported = scope.group.losses.join();
    this.number = scope.countOpening();
    writes.answered(number);
  }

  /**
   * Marks a read that begins, until {@link #endRead}. The epoch is noted, and the handle enrolled,
   * before the read fetches anything: a flush that does not see the read has made its writes
   * visible before.
   *
   * @return the read's phase
   */
  ReadMarks.Phase beginRead() {
    ReadMarks.Phase phase = reads.enter();
    boolean noted = false;
    try {
      if (decision.tracksReads()) {
        if (phase.isEmpty()) {
          phase.note(scope.epoch());
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

  void endRead(ReadMarks.Phase phase) {
    reads.leave(phase);
  }

  /** Marks a read that is not waited for, since the handle does not cache its data. */
  void markRead() {
    endRead(beginRead());
  }

  /** Called when a write begins; returns the scope's openings, for its end. */
  long beginWrite() {
    return scope.openings();
  }

  /**
   * Marks a write that has succeeded.
   *
   * @param openings from {@link #beginWrite}
   */
  void wrote(long openings) {
    writes.answered(openings);
    mayHaveWritten();
  }

  /** Marks a write that has failed, and may have changed something. */
  void mayHaveWritten() {
    writes.count();
    if (decision.canFlush()) {
      writes.enrolment.enrol(scope.group.writers, this);
    }
  }

  /** Marks a write that is durable, and visible in its scope, but outdates others' reads. */
  void wroteThrough(long openings) {
    writes.answered(openings);
    if (decision.tracksReads()) {
      scope.advance();
    }
  }

  /**
   * Does all that a flush of this connection needs.
   *
   * @param forFua whether it stands for a command's FUA
   * @throws IOException if a flush that it needed failed, or writes were lost before
   */
  void flush(boolean forFua) throws IOException {
    new ClientFlush(this, forFua).run();
  }

  /**
   * Closes the handle, after a flush of its uncovered writes if other connections rely on them.
   *
   * @throws IOException if that flush failed, or the close did
   */
  void close() throws IOException {
    new Departure(this).run();
  }
}
