package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import nbd.protocol.NbdException;
import nbd.storage.Handle;

/**
 * The end of a connection's handle: first flushes the writes that another connection's flush would
 * have had to cover, and lets the group remember those that could not be flushed. When the handle
 * is closed, no flush is in it and none comes; and it is closed whatever fails before.
 */
final class Departure {
  private final Member member;
  private final Group group;
  private final List<IOException> failures = new ArrayList<>();

  Departure(Member member) {
    this.member = member;
    this.group = member.scope.group;
  }

  void run() throws IOException {
    try (Handle _ = member.handle) {
      boolean uncovered;
      try {
        flush();
      } finally {
        uncovered = leave();
      }
      if (uncovered && member.decision.flushesBeforeClose() && !failures.isEmpty()) {
        throw NbdException.copyOf(failures.getFirst());
      }
    }
  }

  private void flush() {
    List<FlushRound> rounds = new ArrayList<>();
    try (var _ = group.locked()) {
      group.drainInboxes();
      boolean leaves = member.writes.uncovered() || !member.scope.canCoverLeftBehindWithout(member);
      if (member.attached && member.decision.flushesBeforeClose() && leaves) {
        rounds.add(member.scope.request(FlushScope.Need.WRITES, member));
      }
    }
    FlushRound.runAndAwait(rounds, failures);
  }

  /** Takes the member out of the group; returns whether it goes with uncovered writes. */
  private boolean leave() {
    try (var _ = group.locked()) {
      boolean uncovered = member.writes.uncovered();
      try {
        if (uncovered && member.broken != null) {
          group.lose(member, member.broken);
        } else if (uncovered) {
          leaveBehind();
        }
      } finally {
        group.detach(member);
        while (member.inside > 0) {
          group.left.awaitUninterruptibly();
        }
      }
      return uncovered;
    }
  }

  /**
   * Hands uncovered writes to the scope. Where other connections rely on them, they are lost unless
   * the flush of another handle can still cover them. Where none does, the next flush is not
   * skipped.
   */
  private void leaveBehind() {
    FlushScope scope = member.scope;
    IOException why =
        failures.isEmpty() ? new IOException("no flush followed them") : failures.getFirst();
    if (member.decision.flushesBeforeClose()) {
      scope.leaveBehind(member.writes.openingsSeen(), why);
    } else if (member.decision.sharesFlush()) {
      scope.leaveBehind(Long.MAX_VALUE, why);
    }
    if (member.decision.mode() == MultiConnMode.UNSAFE) {
      group.leftBehind = true;
    }
    member.writes.cover(member.writes.completed());
  }
}
