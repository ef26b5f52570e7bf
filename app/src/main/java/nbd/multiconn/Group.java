package nbd.multiconn;

import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import nbd.protocol.NbdError;
import nbd.storage.Losses;
import nbd.storage.LostException;
import nbd.storage.LostWritesException;

/**
 * The connections that a flush has to keep consistent, and how that is done.
 *
 * <p><b>Durable.</b> Each handle counts the writes that have ended on it ({@link WriteMarks}), and
 * the first one after the handle was clean puts it into the inbox ({@link Enrolment}), both before
 * the client gets its reply. A client's flush ({@link ClientFlush}) empties the inbox, and so finds
 * in {@link #dirtyScopes} whatever has a write that was answered before and is not covered. A
 * handle leaves that set only when a flush that started after its last write has succeeded; while
 * one runs, it is still there, and other flushes find it and wait for the same one.
 *
 * <p><b>Visible.</b> Step one flushes the handles that have written; each success that covers
 * anything makes it visible and advances the other scopes' epoch ({@link FlushScope#epoch}). Step
 * two begins when all of step one has ended, and flushes the handles that may hold older data:
 * those whose oldest read since their last flush began in a lower epoch ({@link ReadMarks}). Reads
 * in flight count as reads, and have to end before that flush starts, since they may yet cache what
 * they fetched before. Reads that begin after step one fetch what is visible already: nobody waits
 * for them. A handle's own writes never outdate its own reads, so one connection that reads, writes
 * and flushes gets one step.
 *
 * <p><b>Honest.</b> A {@link FlushRound} covers what had been counted when it started, once it has
 * succeeded. All clients that waited for it get its failure. What a handle that has gone or broken
 * could not flush, no later flush can make good for: {@link Losses} are reported on every
 * connection, at the end of a flush, so that a loss which is found during a flush fails that one
 * already.
 *
 * <p><b>Minimal and parallel.</b> {@link FlushScope} says which handles share a flush. A client
 * waits for the flushes that it needs, which run at the same time, and not for the whole group to
 * be flushed: then half of the clients would have to wait for the next time.
 *
 * <p><b>No deadlock.</b> No lock is held while a backend is called or a thread waits; this lock is
 * taken last. A client's flush waits for flushes; these wait for handles and for reads that had
 * begun before; both of those wait for the backend alone, since the filter that keeps its thread
 * model is below this one, and a read never waits for a flush here.
 *
 * <p><b>The lock</b> guards all that is not said to be otherwise here, in {@link FlushScope},
 * {@link FlushRound} and {@link Member}. Its invariant: a member that is attached and has uncovered
 * writes is in {@code dirty} of its scope, or in the inbox, or is between counting and enrolling;
 * likewise with reads; the sets of scopes here are those whose own sets are not empty.
 */
final class Group {
  final ReentrantLock lock = new ReentrantLock();
  private final Held held = this::unlock;

  /** Signalled when a flush has left a handle. */
  final Condition left = lock.newCondition();

  final MultiConnSettings settings;

  /** Runs the flushes beside the one that a client's own thread runs. */
  final Executor executor;

  /** Filled without the lock by members that may have to be put on {@link FlushScope#dirty}. */
  final Queue<Member> writers = new ConcurrentLinkedQueue<>();

  /** Filled without the lock by members that may have to be put on {@link FlushScope#readers}. */
  final Queue<Member> readers = new ConcurrentLinkedQueue<>();

  /** The count of changes that became visible; written without the lock. */
  final AtomicLong advances = new AtomicLong();

  /** Every scope that can be flushed. */
  final Set<FlushScope> scopes = new LinkedHashSet<>();

  final Set<FlushScope> dirtyScopes = new LinkedHashSet<>();
  final Set<FlushScope> readerScopes = new LinkedHashSet<>();

  /** Unsafe mode: a member that had written has gone since a flush was last passed on. */
  boolean leftBehind;

  /** The connections that have entered; guarded by {@link ConnectionTable}, not by the lock. */
  int connections;

  private final Map<ScopeKey, FlushScope> sharedScopes = new HashMap<>();

  /** The name and the storage that handles which share their flushes have in common. */
  private record ScopeKey(String exportName, Object storage) {}

  /** The writes that no flush can cover any more. */
  final Losses losses = new Losses();

  /** The count of advances at which nothing was found outdated; nothing is until the next. */
  private long nothingOutdatedAt;

  Group(MultiConnSettings settings, Executor executor) {
    this.settings = settings;
    this.executor = executor;
  }

  /** The lock while it is held. */
  interface Held extends AutoCloseable {
    @Override
    void close();
  }

  /** Takes the lock until the answer is closed. */
  Held locked() {
    lock.lock();
    return held;
  }

  /** Leaves the lock, and then logs the losses that were found under it: the log may be slow. */
  private void unlock() {
    lock.unlock();
    if (!lock.isHeldByCurrentThread()) {
      losses.log();
    }
  }

  /** Finds the scope that a new handle belongs to, or makes it. */
  FlushScope scopeFor(String exportName, Object storage, Decision decision) {
    return decision.sharesFlush()
        ? sharedScopes.computeIfAbsent(
            new ScopeKey(exportName, storage), key -> new FlushScope(this, exportName, storage))
        : new FlushScope(this, exportName, storage);
  }

  void attach(Member member) {
    try {
      member.scope.members.put(member.number, member);
      if (member.decision.canFlush()) {
        scopes.add(member.scope);
      }
      settle(member.scope);
    } catch (Error noMemory) {
      detach(member);
      throw noMemory;
    }
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

  /**
   * Says whether a group without members can be forgotten, since it remembers no loss; takes the
   * lock.
   */
  boolean isForgettable() {
    lock.lock();
    try {
      return losses.unreported().isEmpty() && !leftBehind && sharedScopes.isEmpty();
    } finally {
      lock.unlock();
    }
  }

  /** Lists the members that have marked something since the last time. */
  void drainInboxes() {
    drain(writers, this::listWriter);
    drain(readers, this::listReader);
  }

  /** Empties an inbox. A member that cannot be listed, for want of memory perhaps, stays in it. */
  static void drain(Queue<Member> inbox, Consumer<Member> list) {
    for (Member member = inbox.peek(); member != null; member = inbox.peek()) {
      list.accept(member);
      inbox.remove();
    }
  }

  private void listWriter(Member member) {
    if (member.attached) {
      member.scope.dirty.add(member);
      settleWrites(member);
      settle(member.scope);
    } else if (member.broken != null) {
      // The write was answered just before the handle broke, and enrolled just after.
      lose(member, member.broken);
    }
  }

  private void listReader(Member member) {
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

  /** Takes a member off the readers if it holds nothing that was read. */
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

  /** Finds the scopes that may hold older data than what is visible. */
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

  /** Unsafe mode: whether any member has written since a flush was last passed on. */
  boolean hasWrittenSincePassedOn() {
    return leftBehind
        || dirtyScopes.stream()
            .flatMap(scope -> scope.dirty.stream())
            .anyMatch(member -> member.writes.completed() > member.passedOn);
  }

  /**
   * Notes that a flush of the scope has failed with a loss, which may be one of another handle's
   * writes. Each handle of the storage reports it once, but not every connection's flush enters its
   * own handle.
   */
  void recordLoss(FlushScope scope, LostWritesException lost) {
    // Other groups and export names may stand for the same storage, and get it from its handles.
    if (lost.number() > scope.lastLoss) {
      scope.lastLoss = lost.number();
      losses.add(scope.exportName, lost);
    }
  }

  /**
   * Gives up a handle that has broken for good: no flush enters it any more, and its uncovered
   * writes are lost.
   */
  void abandon(Member member, LostException failure) {
    if (member.attached) {
      lose(member, failure);
      member.broken = failure;
      detach(member);
    }
  }

  /**
   * Gives up the dirty handles of an export name that are known to be broken. They may belong to an
   * earlier session with the same server, whose handles no flush of a later one enters.
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
   * Marks that many writes of a member as covered by a flush that has succeeded: but not if the
   * member's own connection has broken, since it is unknown then whether they had reached the
   * storage.
   *
   * @param entered the member whose handle was flushed
   * @return whether any were not covered before
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
   * Gives up the uncovered writes of a member. They are a loss if other connections relied on a
   * flush for them. A later write enrols again.
   */
  void lose(Member member, LostException why) {
    member.writes.enrolment.beginInterval();
    long completed = member.writes.completed();
    if (member.writes.uncovered() && member.decision.flushesBeforeClose()) {
      losses.add(member.scope.exportName, why);
    }
    member.writes.cover(completed);
  }
}
