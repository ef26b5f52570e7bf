package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import nbd.storage.LostException;
import nbd.storage.LostWritesException;
import org.jspecify.annotations.Nullable;

/**
 * One backend flush of a scope, and those who wait for it: notes what it will cover when it starts,
 * and marks exactly that when it has succeeded, and nothing when it has failed.
 *
 * <p>Whatever happens to it, also when memory is short: it ends, those who wait are told, the
 * handle is left, and the scope's next flush is begun. What has to be done for that allocates
 * nothing.
 */
final class FlushRound {
  /** What those who wait are told where there was no memory to say more; made while there is. */
  @SuppressWarnings("StaticAssignmentOfThrowable")
  private static final IOException BROKEN_OFF =
      new IOException("a flush was broken off, perhaps for want of memory");

  private final FlushScope scope;
  private final Member asked;

  /** Completed with the failure, or null. */
  private final CompletableFuture<@Nullable IOException> end = new CompletableFuture<>();

  /** Guarded by the group's lock, as everything below. */
  boolean waitsForReads;

  private boolean begun;
  private boolean started;
  private long age;

  /** The handle that the flush is in. */
  private @Nullable Member entered;

  private final List<Member> targeted = new ArrayList<>();
  private final List<Turned> turned = new ArrayList<>();
  private boolean coversLeftBehind;
  private boolean coversGroupLeftBehind;
  private final List<PassedOn> passedOn = new ArrayList<>();

  /** A phase of a handle's reads, which this flush clears. */
  private record Turned(Member member, int phase) {}

  /** How many writes a handle had completed when this flush was passed on. */
  private record PassedOn(Member member, long count) {}

  FlushRound(FlushScope scope, Member asked) {
    this.scope = scope;
    this.asked = asked;
  }

  /** Whether somebody runs it. */
  boolean begun() {
    return begun;
  }

  /** Whether writes that complete from now on are too late for it. */
  boolean started() {
    return started;
  }

  /** Whether it covers what members that have gone left behind. */
  boolean coversLeftBehind() {
    return coversLeftBehind;
  }

  /**
   * Whether it lets go of everything that was read before this age; one that has not begun is told
   * to.
   */
  boolean refreshes(long before) {
    if (!begun) {
      waitsForReads = true;
    }
    return waitsForReads && (!begun || age >= before);
  }

  /**
   * Runs those of some flushes that are due and that nobody has begun, at the same time, and waits
   * for all. Holds no lock.
   *
   * @param failures gets theirs
   */
  static void runAndAwait(Group group, List<FlushRound> rounds, List<IOException> failures) {
    FlushRound last = null;
    for (FlushRound round : rounds) {
      if (round.isToBeRun(group)) {
        if (last != null && !last.isRunElsewhere(group)) {
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

  private boolean isToBeRun(Group group) {
    group.lock.lock();
    try {
      return scope.isToBeRun(this);
    } finally {
      group.lock.unlock();
    }
  }

  /** Has another thread run it; answers whether there was one to be had. */
  private boolean isRunElsewhere(Group group) {
    try {
      group.executor.execute(this::run);
      return true;
    } catch (RuntimeException | Error noThread) {
      return false;
    }
  }

  /** Runs it unless somebody does, and then the scope's next if nobody else can. Never throws. */
  private void run() {
    Group group = scope.group;
    FlushRound round = this;
    while (round != null && round.begin(group)) {
      FlushRound next = round.runToItsEnd(group);
      round = next == null || next.isRunElsewhere(group) ? null : next;
    }
  }

  private @Nullable FlushRound runToItsEnd(Group group) {
    @Nullable IOException failure;
    try {
      failure = flush(group);
    } catch (RuntimeException | Error e) {
      failure = brokenOff(e);
    }
    return finish(group, failure);
  }

  private static IOException brokenOff(Throwable why) {
    try {
      return new IOException("flush failed: " + why, why);
    } catch (OutOfMemoryError | StackOverflowError e) {
      return BROKEN_OFF;
    }
  }

  private boolean begin(Group group) {
    group.lock.lock();
    try {
      if (begun) {
        return false;
      }
      begun = true;
      return true;
    } finally {
      group.lock.unlock();
    }
  }

  /** Answers the failure, if it has failed. */
  private @Nullable IOException flush(Group group) {
    for (Member reader : readersToWaitFor(group)) {
      turned.add(new Turned(reader, reader.reads.turnAndWait()));
    }
    Member handle = start(group);
    while (handle != null) {
      try {
        handle.handle.flush();
        return null;
      } catch (LostException lost) {
        abandon(group, handle, lost);
      } catch (LostWritesException lost) {
        group.recordLoss(scope, lost);
        return lost;
      } catch (IOException failure) {
        return failure;
      }
      handle = start(group);
    }
    // Every member has left; what they left uncovered, if anything, the group knows.
    return null;
  }

  private List<Member> readersToWaitFor(Group group) {
    group.lock.lock();
    try {
      group.drainInboxes();
      age = scope.age();
      return waitsForReads ? List.copyOf(scope.readers) : List.of();
    } finally {
      group.lock.unlock();
    }
  }

  /**
   * Enters a handle, and notes what its flush will cover; once more if the handle before was
   * broken. Null if there is none.
   */
  private @Nullable Member start(Group group) {
    group.lock.lock();
    try {
      group.drainInboxes();
      started = true;
      Member entry = scope.entry(asked);
      if (entry == null) {
        return null;
      }
      entered = entry;
      entry.inside++;
      targeted.clear();
      for (Member member : scope.dirty) {
        targeted.add(member);
        member.target = member.writes.completed();
      }
      coversLeftBehind = scope.hasLeftBehind();
      if (!waitsForReads) {
        turnReaders();
      }
      if (group.settings.mode() == MultiConnMode.UNSAFE) {
        notePassedOn(group);
      }
      return entry;
    } finally {
      group.lock.unlock();
    }
  }

  private void turnReaders() {
    turned.clear();
    for (Member reader : scope.readers) {
      int ended = reader.reads.turnWithoutWaiting();
      if (ended >= 0) {
        turned.add(new Turned(reader, ended));
      }
    }
  }

  private void notePassedOn(Group group) {
    passedOn.clear();
    coversGroupLeftBehind = group.leftBehind;
    for (FlushScope other : group.dirtyScopes) {
      for (Member member : other.dirty) {
        passedOn.add(new PassedOn(member, member.writes.completed()));
      }
    }
  }

  private void abandon(Group group, Member broken, LostException lost) {
    group.lock.lock();
    try {
      leaveHandle(group);
      group.abandon(broken, lost);
    } finally {
      group.lock.unlock();
    }
  }

  /** Ends it, and answers the flush that is to be run now. */
  private @Nullable FlushRound finish(Group group, @Nullable IOException failure) {
    @Nullable IOException told = failure;
    group.lock.lock();
    try {
      Member handle = entered;
      if (failure == null && handle != null) {
        cover(group, handle);
      }
    } catch (RuntimeException | Error e) {
      told = brokenOff(e);
    }
    for (Member member : targeted) {
      member.target = -1;
      group.settleWrites(member);
    }
    for (Turned phase : turned) {
      group.settleReads(phase.member);
    }
    group.settle(scope);
    leaveHandle(group);
    FlushRound next = scope.next();
    group.lock.unlock();
    end.complete(told);
    return next;
  }

  private void leaveHandle(Group group) {
    if (entered != null) {
      entered.inside--;
      entered = null;
      group.left.signalAll();
    }
  }

  /** Marks as covered what was noted at the start. */
  private void cover(Group group, Member handle) {
    boolean news = coversLeftBehind;
    for (Member member : targeted) {
      news |= group.cover(member, member.target, handle);
    }
    if (news) {
      scope.advance();
    }
    for (Turned phase : turned) {
      phase.member.reads.clear(phase.phase);
    }
    if (coversLeftBehind && scope.hasLeftBehind()) {
      scope.takeLeftBehind();
    }
    for (PassedOn noted : passedOn) {
      noted.member.passedOn = Math.max(noted.member.passedOn, noted.count);
    }
    if (coversGroupLeftBehind) {
      group.leftBehind = false;
    }
  }
}
