package nbd.multiconn;

import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import nbd.storage.LostException;
import nbd.storage.LostWritesException;
import org.jspecify.annotations.Nullable;

/**
 * One backend flush of a scope, for which any number of clients wait. It notes what it will cover
 * when it starts, and marks exactly that when it has succeeded, and nothing when it has failed.
 *
 * <p>Whatever happens to it, also when memory is short: it ends, all that wait for it get its
 * outcome, the handle is left, and the scope's next flush is begun. None of that allocates.
 */
final class FlushRound {
  /** The outcome where there was no memory for a better one; made while there is. */
  @SuppressWarnings("StaticAssignmentOfThrowable")
  private static final IOException BROKEN_OFF =
      new IOException("a flush was broken off, perhaps for want of memory");

  private final FlushScope scope;
  private final Group group;
  private final Member asked;

  /** Completed with the failure, or null. */
  private final CompletableFuture<@Nullable IOException> end = new CompletableFuture<>();

  /** Guarded by the group's lock, as everything below. */
  boolean waitsForReads;

  /** A thread runs it. */
  boolean begun;

  /** Writes that complete from now on are too late for it. */
  boolean started;

  /** It covers what members that have gone left behind. */
  boolean coversLeftBehind;

  /** The scope's epoch when it began. */
  private long epoch;

  /** The member whose handle the flush is in. */
  private @Nullable Member entered;

  /** The number of writes of each dirty member that it covers. */
  private Map<Member, Long> counts = Map.of();

  /** The phases of the members' reads that it clears. */
  private final Map<Member, ReadMarks.Phase> turned = new HashMap<>();

  /** Unsafe mode: how many writes of each dirty member of the group came before it. */
  private final Map<Member, Long> passedOn = new HashMap<>();

  private boolean coversGroupLeftBehind;

  FlushRound(FlushScope scope, Member asked) {
    this.scope = scope;
    this.group = scope.group;
    this.asked = asked;
  }

  /** Says whether it has started, and covers all writes that a member has completed by now. */
  boolean covers(Member member) {
    return member.writes.completed() <= counts.getOrDefault(member, -1L);
  }

  /** Says whether it clears all data read before an epoch; one that has not begun is made to. */
  boolean refreshes(long before) {
    if (!begun) {
      waitsForReads = true;
      return true;
    }
    return waitsForReads && epoch >= before;
  }

  /**
   * Runs those flushes that are due, at the same time, and waits for all. Called without a lock.
   *
   * @param failures gets theirs
   */
  static void runAndAwait(List<FlushRound> rounds, List<IOException> failures) {
    FlushRound last = null;
    for (FlushRound round : rounds) {
      if (round.isDue()) {
        if (last != null && !last.isRunElsewhere()) {
          last.run();
        }
        last = round;
      }
    }
    if (last != null) {
      last.run();
    }
    for (FlushRound round : rounds) {
      IOException failure = round.end.join();
      if (failure != null) {
        failures.add(failure);
      }
    }
  }

  private boolean isDue() {
    try (var _ = group.locked()) {
      return scope.isDue(this);
    }
  }

  /** Has another thread run it; false if there is none to be had. */
  private boolean isRunElsewhere() {
    try {
      group.executor.execute(this::run);
      return true;
    } catch (RuntimeException | Error noThread) {
      return false;
    }
  }

  /** Runs it unless another thread does, and then the scope's next if none does. Never throws. */
  private void run() {
    FlushRound round = this;
    while (round != null && round.begin()) {
      FlushRound next = round.runToItsEnd();
      round = next == null || next.isRunElsewhere() ? null : next;
    }
  }

  private boolean begin() {
    try (var _ = group.locked()) {
      boolean mine = !begun;
      begun = true;
      return mine;
    }
  }

  /** Returns the flush that is to run now. */
  private @Nullable FlushRound runToItsEnd() {
    @Nullable IOException failure;
    try {
      failure = flush();
    } catch (RuntimeException | Error e) {
      failure = brokenOff(e);
    }
    return finish(failure);
  }

  private static IOException brokenOff(Throwable why) {
    try {
      return new IOException("flush failed: " + why, why);
    } catch (OutOfMemoryError | StackOverflowError e) {
      return BROKEN_OFF;
    }
  }

  /** Returns the failure, if it has failed. */
  private @Nullable IOException flush() {
    for (Member reader : readersToWaitFor()) {
      turned.put(reader, reader.reads.turnAndWait());
    }
    for (Member member = start(); member != null; member = start()) {
      try {
        member.handle.flush();
        return null;
      } catch (LostException lost) {
        try (var _ = group.locked()) {
          leaveHandle();
          group.abandon(member, lost);
        }
      } catch (LostWritesException lost) {
        try (var _ = group.locked()) {
          group.recordLoss(scope, lost);
        }
        return lost;
      } catch (IOException failure) {
        return failure;
      }
    }
    // Every member has left; the group knows what they left uncovered.
    return null;
  }

  private List<Member> readersToWaitFor() {
    try (var _ = group.locked()) {
      group.drainInboxes();
      epoch = scope.epoch();
      return waitsForReads ? List.copyOf(scope.readers) : List.of();
    }
  }

  /**
   * Enters a handle, and notes what its flush will cover; once more if the handle before was
   * broken. Null if there is none.
   */
  private @Nullable Member start() {
    try (var _ = group.locked()) {
      group.drainInboxes();
      started = true;
      Member entry = scope.handleToEnter(asked);
      if (entry == null) {
        return null;
      }
      entered = entry;
      entry.inside++;
      counts = scope.completedWrites();
      coversLeftBehind = scope.hasLeftBehind();
      if (!waitsForReads) {
        turnReaders();
      }
      if (group.settings.mode() == MultiConnMode.UNSAFE) {
        coversGroupLeftBehind = group.leftBehind;
        group.dirtyScopes.forEach(dirty -> passedOn.putAll(dirty.completedWrites()));
      }
      return entry;
    }
  }

  private void turnReaders() {
    turned.clear();
    for (Member reader : scope.readers) {
      ReadMarks.Phase ended = reader.reads.turnWithoutWaiting();
      if (ended != null) {
        turned.put(reader, ended);
      }
    }
  }

  /**
   * Ends it; returns the flush that is to run now. The clients that waited log the losses that were
   * found, since the log may fail.
   */
  private @Nullable FlushRound finish(@Nullable IOException failure) {
    @Nullable IOException outcome = failure;
    FlushRound next;
    group.lock.lock();
    try {
      if (failure == null && entered != null) {
        cover(entered);
      }
    } catch (RuntimeException | Error e) {
      outcome = brokenOff(e);
    } finally {
      leaveHandle();
      next = scope.next();
      group.lock.unlock();
    }
    end.complete(outcome);
    return next;
  }

  private void leaveHandle() {
    if (entered != null) {
      entered.inside--;
      entered = null;
      group.left.signalAll();
    }
  }

  /** Marks as covered what was noted at the start. */
  private void cover(Member handle) {
    boolean news = scope.cover(counts, handle);
    if (news || coversLeftBehind) {
      scope.advance();
    }
    turned.forEach(
        (member, phase) -> {
          phase.clear();
          group.settleReads(member);
        });
    if (coversLeftBehind && scope.hasLeftBehind()) {
      scope.takeLeftBehind();
    }
    passedOn.forEach((member, count) -> member.passedOn = Math.max(member.passedOn, count));
    if (coversGroupLeftBehind) {
      group.leftBehind = false;
    }
    group.settle(scope);
  }
}
