package nbd.multiconn;

import java.io.IOException;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Executor;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.NbdError;
import nbd.storage.Losses;
import nbd.storage.LostException;
import nbd.storage.LostWritesException;

/**
 * The handles that a flush has to keep consistent, and how that is done.
 *
 * <p><b>Durable.</b> Each handle counts the writes that have ended on it ({@link WriteMarks}), and
 * the first one after the handle was clean puts it into the inbox ({@link Enrolment}), both before
 * the client is told. A client's flush ({@link ClientFlush}) empties the inbox, and so finds in
 * {@link #dirtyScopes} whatever has a write that was answered before and is not covered. A handle
 * leaves that set only when a flush that started after its last write has succeeded; while one
 * runs, it is still there, and others find it and wait for the same one.
 *
 * <p><b>Visible.</b> Step one flushes who has written; each success that covers anything makes it
 * visible and advances the count of the others' {@link FlushScope#age}. Step two begins when all of
 * step one has ended, and flushes who may hold older data: whose oldest read since its last flush
 * began at a lower age ({@link ReadMarks}). Reads in flight count as reads, and have to end before
 * that flush starts, since they may yet put down what they fetched before. Reads that begin after
 * step one fetch what is visible already: nobody waits for them. A handle's own writes never
 * outdate its own reads, so one connection that reads, writes and flushes gets one step.
 *
 * <p><b>Honest.</b> A {@link FlushRound} covers what had been counted when it started, once it has
 * succeeded. All who waited for it get its failure. What a handle that has gone or broken could not
 * flush, no later flush can make good for: {@link Losses} are reported to every connection, at the
 * end of its flush, so that a loss which is found during a flush fails that one already.
 *
 * <p><b>Minimal and parallel.</b> {@link FlushScope} says who shares a flush. A client waits for
 * the flushes that it needs, which run at the same time, and for no round of the group's: with
 * rounds, half of the clients would wait for the next one.
 *
 * <p><b>No deadlock.</b> No lock is held while a backend is called or anybody is waited for; this
 * lock is taken last. A client's flush waits for flushes; these wait for handles and for reads that
 * had begun before; both of those wait for the backend alone, since the filter that keeps its
 * thread model is below this one, and a read never waits for a flush here.
 *
 * <p><b>This lock</b> guards all that is not said to be otherwise here, in {@link FlushScope},
 * {@link FlushRound} and {@link Member}. Its invariant: a member that is attached and has uncovered
 * writes is in {@code dirty} of its scope, or in the inbox, or is between counting and enrolling;
 * likewise with reads; the sets of scopes here are those whose own sets are not empty.
 */
final class Group {
  final ReentrantLock lock = new LoggingLock();

  /** Signalled when a flush has left a handle. */
  final Condition left = lock.newCondition();

  final MultiConnSettings settings;

  /** Runs the flushes for which no caller has the time. */
  final Executor executor;

  final Inbox writers = new Inbox();
  final Inbox readers = new Inbox();

  /** How often something became visible; takes no lock. */
  final AtomicLong advances = new AtomicLong();

  /** Every scope that can be flushed. */
  final Set<FlushScope> scopes = new LinkedHashSet<>();

  final Set<FlushScope> dirtyScopes = new LinkedHashSet<>();
  final Set<FlushScope> readerScopes = new LinkedHashSet<>();

  /** Unsafe mode: a member went since the last flush that was passed on, and had written. */
  boolean leftBehind;

  /** Logs the losses that were found under it when it has been left: the log may be slow. */
  private final class LoggingLock extends ReentrantLock {
    private static final long serialVersionUID = 1;

    @Override
    public void unlock() {
      super.unlock();
      if (!isHeldByCurrentThread()) {
        losses.log();
      }
    }
  }

  private final Map<ScopeKey, FlushScope> sharedScopes = new HashMap<>();

  /** What handles have in common that share their flushes. */
  private record ScopeKey(String exportName, Object storage) {}

  /** What cannot be covered any more. */
  final Losses losses = new Losses();

  /** The count of advances at which nothing was found outdated; nothing is until the next. */
  private long nothingOutdatedAt;

  Group(MultiConnSettings settings, Executor executor) {
    this.settings = settings;
    this.executor = executor;
  }

  /** The scope that a new handle belongs to. */
  FlushScope scopeFor(String exportName, Object storage, Decision decision) {
    return decision.sharesFlush()
        ? sharedScopes.computeIfAbsent(
            new ScopeKey(exportName, storage), key -> new FlushScope(this, exportName, storage))
        : new FlushScope(this, exportName, storage);
  }

  void attach(Member member) {
    member.scope.members.put(member.number, member);
    if (member.decision.canFlush()) {
      scopes.add(member.scope);
    }
    settle(member.scope);
  }

  /** Takes a member off all lists: no flush enters its handle from now on. */
  void detach(Member member) {
    FlushScope scope = member.scope;
    member.attached = false;
    scope.members.remove(member.number);
    scope.dirty.remove(member);
    scope.readers.remove(member);
    if (!scope.canCoverLeftBehindWithout(null)) {
      losses.add(scope.exportName, scope.takeLeftBehind());
    }
    settle(scope);
    if (scope.members.isEmpty()) {
      scopes.remove(scope);
      if (!scope.hasLeftBehind()) {
        sharedScopes.remove(new ScopeKey(scope.exportName, scope.storage), scope);
      }
    }
  }

  /** Whether nothing is lost by forgetting a group without members. */
  boolean isForgettable() {
    return losses.unreported().isEmpty() && !leftBehind && sharedScopes.isEmpty();
  }

  /** Enlists who has marked something since the last time. */
  void drainInboxes() {
    writers.drain(this::enlistWriter);
    readers.drain(this::enlistReader);
  }

  private void enlistWriter(Member member) {
    if (member.attached) {
      member.scope.dirty.add(member);
      settleWrites(member);
      settle(member.scope);
    } else if (member.broken != null) {
      // It was answered just before the handle broke, and noted just after.
      lose(member, member.broken);
    }
  }

  private void enlistReader(Member member) {
    if (member.attached) {
      member.scope.readers.add(member);
      settleReads(member);
      settle(member.scope);
    }
  }

  /** Takes a member off the dirty ones if it is clean; {@link Enrolment} says why in this order. */
  void settleWrites(Member member) {
    if (member.attached && !member.writes.uncovered()) {
      member.writes.enrolment.beginInterval();
      if (!member.writes.uncovered()) {
        member.scope.dirty.remove(member);
      }
    }
  }

  /** Takes a member off the readers if it holds nothing. */
  void settleReads(Member member) {
    if (member.attached && !member.reads.any()) {
      member.reads.enrolment.beginInterval();
      if (!member.reads.any()) {
        member.scope.readers.remove(member);
      }
    }
  }

  /** Brings the sets of scopes up to date with a scope's own; none without a member is in them. */
  void settle(FlushScope scope) {
    if (scope.isDirty() && !scope.members.isEmpty()) {
      dirtyScopes.add(scope);
    } else {
      dirtyScopes.remove(scope);
    }
    if (scope.readers.isEmpty()) {
      readerScopes.remove(scope);
    } else {
      readerScopes.add(scope);
    }
  }

  /** The scopes that may hold older data than what is visible. */
  Set<FlushScope> outdated() {
    Set<FlushScope> found = new LinkedHashSet<>();
    // Read first: what advances from here on is looked at the next time.
    long now = advances.get();
    if (nothingOutdatedAt == now) {
      return found;
    }
    for (FlushScope scope : readerScopes) {
      if (scope.isOutdated()) {
        found.add(scope);
      }
    }
    if (found.isEmpty()) {
      nothingOutdatedAt = now;
    }
    return found;
  }

  /** Unsafe mode: whether anybody has written since a flush was last passed on. */
  boolean hasWrittenSincePassedOn() {
    if (leftBehind) {
      return true;
    }
    for (FlushScope scope : dirtyScopes) {
      for (Member member : scope.dirty) {
        if (member.writes.completed() > member.passedOn) {
          return true;
        }
      }
    }
    return false;
  }

  /**
   * A flush has found that writes of the scope's export are lost, on whichever handle. The handles
   * say so one by one, but not every connection's flush gets to its own.
   */
  void recordLoss(FlushScope scope, LostWritesException lost) {
    lock.lock();
    try {
      // Other groups and export names may stand for the same storage, and hear of it on their own.
      if (lost.number() > scope.lastLoss) {
        scope.lastLoss = lost.number();
        losses.add(scope.exportName, lost);
      }
    } finally {
      lock.unlock();
    }
  }

  /**
   * A handle has broken for good: nothing enters it any more, and what it had not flushed is lost.
   */
  void abandon(Member member, LostException failure) {
    if (!member.attached) {
      return;
    }
    lose(member, failure);
    member.broken = failure;
    detach(member);
  }

  /**
   * Finds what is lost on an export name with handles that nobody enters who has opened it since:
   * it may stand for a new session with the same server.
   */
  void abandonBroken(String exportName) {
    for (FlushScope scope : List.copyOf(dirtyScopes)) {
      if (scope.exportName.equals(exportName)) {
        for (Member member : List.copyOf(scope.dirty)) {
          member
              .handle
              .broken()
              .ifPresent(why -> abandon(member, new LostException(NbdError.ESHUTDOWN, why)));
        }
      }
    }
  }

  /**
   * A flush has succeeded that had entered a handle, and covers that many writes of a member: but
   * not on a connection that has broken, where nobody can tell any more what became of them.
   * Answers whether that is news.
   */
  boolean cover(Member member, long count, Member entered) {
    Optional<String> broken = member == entered ? Optional.empty() : member.handle.broken();
    if (broken.isPresent()) {
      abandon(member, new LostException(NbdError.ESHUTDOWN, broken.get()));
      return false;
    }
    return member.writes.cover(count);
  }

  /**
   * What a handle has answered that no flush covers any more is lost, if anybody but its own client
   * relied on a flush for it. What is marked from now on comes by the inbox again.
   */
  void lose(Member member, IOException why) {
    member.writes.enrolment.beginInterval();
    long completed = member.writes.completed();
    if (member.writes.uncovered() && member.decision.flushesBeforeClose()) {
      losses.add(member.scope.exportName, why);
    }
    member.writes.cover(completed);
  }
}
