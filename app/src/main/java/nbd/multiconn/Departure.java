package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import nbd.protocol.NbdException;
import org.jspecify.annotations.Nullable;

/**
 * The end of a connection's handle: flushes first what another connection's flush would have had to
 * cover, and lets the group remember what could not be. When the handle is closed, no flush is in
 * it and none comes; and it is closed whatever fails before.
 */
final class Departure {
  private final Member member;
  private final Group group;

  Departure(Member member) {
    this.member = member;
    this.group = member.scope.group;
  }

  void run() throws IOException {
    List<IOException> failures = new ArrayList<>();
    boolean lost = false;
    try {
      flush(failures);
    } finally {
      try {
        lost = leave(failures.isEmpty() ? null : failures.getFirst());
      } finally {
        closeHandle(lost && !failures.isEmpty() ? failures.getFirst() : null);
      }
    }
  }

  private void flush(List<IOException> failures) {
    List<FlushRound> rounds = new ArrayList<>();
    group.lock.lock();
    try {
      group.drainInboxes();
      boolean leaves = member.writes.uncovered() || !member.scope.canCoverLeftBehindWithout(member);
      if (member.attached && member.decision.flushesBeforeClose() && leaves) {
        rounds.add(member.scope.request(FlushScope.Need.WRITES, member));
      }
    } finally {
      group.lock.unlock();
    }
    FlushRound.runAndAwait(group, rounds, failures);
  }

  /** Takes it off the group; answers whether something is uncovered that was to be flushed. */
  private boolean leave(@Nullable IOException failure) {
    group.lock.lock();
    try {
      boolean uncovered = member.writes.uncovered();
      if (uncovered && member.broken != null) {
        group.lose(member, member.broken);
      } else if (uncovered) {
        leaveBehind(failure == null ? new IOException("no flush followed them") : failure);
      }
      return uncovered && member.decision.flushesBeforeClose();
    } finally {
      group.detach(member);
      while (member.inside > 0) {
        group.left.awaitUninterruptibly();
      }
      group.lock.unlock();
    }
  }

  /**
   * Where somebody relies on these writes, they are lost unless another handle's flush can cover
   * them still. Where nobody does, the next flush is not skipped.
   */
  private void leaveBehind(IOException why) {
    FlushScope scope = member.scope;
    if (member.decision.flushesBeforeClose()) {
      scope.leaveBehind(member.writes.provenWith(), why);
    } else if (member.decision.sharesFlush()) {
      scope.leaveBehind(Long.MAX_VALUE, why);
    }
    if (member.decision.mode() == MultiConnMode.UNSAFE) {
      group.leftBehind = true;
    }
    member.writes.cover(member.writes.completed());
  }

  private void closeHandle(@Nullable IOException failure) throws IOException {
    try {
      member.handle.close();
    } catch (IOException e) {
      if (failure != null) {
        e.addSuppressed(failure);
      }
      throw e;
    }
    if (failure != null) {
      throw NbdException.copyOf(failure);
    }
  }
}
