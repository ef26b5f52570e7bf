package nbd.multiconn;

import java.io.IOException;
import java.util.Optional;

/**
 * The end of a connection's handle: flushes first what another connection's flush would have had to
 * cover, and lets the group remember what could not be. When the handle is closed, no flush is in
 * it and none comes.
 */
final class Departure {
  private final Member member;
  private final Group group;

  Departure(Member member) {
    this.member = member;
    this.group = member.scope.group;
  }

  void run() throws IOException {
    Optional<IOException> failure = flush();
    boolean lost;
    group.lock.lock();
    try {
      group.drainInboxes();
      lost = member.writes.uncovered() && member.decision.flushesBeforeClose();
      if (lost && !member.decision.sharesFlush()) {
        group.losses.add(
            member.scope.exportName,
            failure.orElseGet(() -> new IOException("a write came after the last flush")));
      } else if (member.writes.uncovered()) {
        leaveBehind();
      }
      group.detach(member);
      while (member.inside > 0) {
        group.left.awaitUninterruptibly();
      }
    } finally {
      group.lock.unlock();
    }
    closeHandle(lost ? failure : Optional.empty());
  }

  private Optional<IOException> flush() {
    FlushScope.Request request;
    group.lock.lock();
    try {
      group.drainInboxes();
      if (!member.decision.flushesBeforeClose() || !member.writes.uncovered()) {
        return Optional.empty();
      }
      request = member.scope.request(FlushScope.Need.WRITES, member);
    } finally {
      group.lock.unlock();
    }
    if (request.isToBeRun()) {
      request.round().run();
    }
    return request.round().await();
  }

  /**
   * Another handle's flush covers these writes, if the storage makes that promise, and fails if it
   * cannot keep it; or nobody was promised that they are covered. The next flush is not skipped.
   */
  private void leaveBehind() {
    if (member.decision.sharesFlush()) {
      member.scope.leftBehind = true;
    }
    if (member.decision.mode() == MultiConnMode.UNSAFE) {
      group.leftBehind = true;
    }
  }

  private void closeHandle(Optional<IOException> failure) throws IOException {
    try {
      member.handle.close();
    } catch (IOException e) {
      failure.ifPresent(e::addSuppressed);
      throw e;
    }
    if (failure.isPresent()) {
      throw Failures.withMessage(failure.get(), String.valueOf(failure.get().getMessage()));
    }
  }
}
