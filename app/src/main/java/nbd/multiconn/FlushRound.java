package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import nbd.backend.LostException;
import nbd.backend.LostWritesException;
import org.jspecify.annotations.Nullable;

/**
 * One backend flush of a scope, and those who wait for it: notes what it will cover when it starts,
 * and marks exactly that when it has succeeded, and nothing when it has failed.
 */
final class FlushRound {
  private final FlushScope scope;
  private final Member asked;
  private final CompletableFuture<Optional<IOException>> end = new CompletableFuture<>();

  /** Guarded by the group's lock, as everything below. */
  boolean waitsForReads;

  private boolean begun;
  private boolean started;
  private long age;
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

  /** Waits for the end; answers the failure. Holds no lock. */
  Optional<IOException> await() {
    return end.join();
  }

  /** Flushes, then has the next flush of the scope run. Holds no lock, and never throws. */
  void run() {
    Group group = scope.group;
    @Nullable Member entered = null;
    @Nullable IOException failure = null;
    try {
      entered = enter(group);
      while (entered != null && !flush(entered)) {
        entered = enterAnother(group);
      }
    } catch (IOException e) {
      failure = e;
    } catch (RuntimeException | Error e) {
      failure = new IOException("flush failed: " + e, e);
    }
    @Nullable FlushRound next = leave(group, entered, failure == null);
    end.complete(Optional.ofNullable(failure));
    if (next != null) {
      group.executor.execute(next::run);
    }
  }

  /** Flushes; false if the handle has turned out to be broken, and is entered no more. */
  private boolean flush(Member entered) throws IOException {
    try {
      entered.handle.flush();
      return true;
    } catch (LostException lost) {
      abandon(entered, lost);
      return false;
    } catch (LostWritesException lost) {
      scope.group.tellAll(scope, lost);
      throw lost;
    }
  }

  private void abandon(Member entered, LostException lost) {
    Group group = scope.group;
    group.lock.lock();
    try {
      group.abandon(entered, lost);
      entered.inside--;
      group.left.signalAll();
    } finally {
      group.lock.unlock();
    }
  }

  private @Nullable Member enterAnother(Group group) {
    group.lock.lock();
    try {
      Member entered = scope.enterable(asked);
      if (entered != null) {
        entered.inside++;
      }
      return entered;
    } finally {
      group.lock.unlock();
    }
  }

  /** Begins, and starts when nothing has to be waited for any more. Null if no handle is left. */
  private @Nullable Member enter(Group group) {
    List<Member> waitFor;
    Member entered;
    group.lock.lock();
    try {
      group.drainInboxes();
      begun = true;
      age = scope.age();
      entered = scope.enterable(asked);
      if (entered == null) {
        // Every member has left; what it left uncovered, if anything, the group knows.
        started = true;
        return null;
      }
      entered.inside++;
      waitFor = waitsForReads ? List.copyOf(scope.readers) : List.of();
    } finally {
      group.lock.unlock();
    }
    for (Member reader : waitFor) {
      turned.add(new Turned(reader, reader.reads.turnAndWait()));
    }
    group.lock.lock();
    try {
      group.drainInboxes();
      start(group);
    } finally {
      group.lock.unlock();
    }
    return entered;
  }

  private void start(Group group) {
    started = true;
    for (Member member : scope.dirty) {
      member.target = member.writes.completed();
      targeted.add(member);
    }
    coversLeftBehind = scope.leftBehind;
    if (!waitsForReads) {
      for (Member reader : scope.readers) {
        int ended = reader.reads.turnWithoutWaiting();
        if (ended >= 0) {
          turned.add(new Turned(reader, ended));
        }
      }
    }
    if (group.settings.mode() == MultiConnMode.UNSAFE) {
      notePassedOn(group);
    }
  }

  private void notePassedOn(Group group) {
    coversGroupLeftBehind = group.leftBehind;
    for (FlushScope other : group.dirtyScopes) {
      for (Member member : other.dirty) {
        passedOn.add(new PassedOn(member, member.writes.completed()));
      }
    }
  }

  private @Nullable FlushRound leave(Group group, @Nullable Member entered, boolean succeeded) {
    group.lock.lock();
    try {
      if (entered != null) {
        if (succeeded) {
          cover(group);
        }
        for (Member member : targeted) {
          member.target = -1;
          group.settleWrites(member);
        }
        for (Turned phase : turned) {
          group.settleReads(phase.member);
        }
        group.settle(scope);
        entered.inside--;
        group.left.signalAll();
      }
      return scope.next();
    } finally {
      group.lock.unlock();
    }
  }

  private void cover(Group group) {
    boolean news = coversLeftBehind;
    for (Member member : targeted) {
      news |= member.writes.cover(member.target);
    }
    if (news) {
      scope.advance();
    }
    for (Turned phase : turned) {
      phase.member.reads.clear(phase.phase);
    }
    if (coversLeftBehind) {
      scope.leftBehind = false;
    }
    for (PassedOn noted : passedOn) {
      noted.member.passedOn = Math.max(noted.member.passedOn, noted.count);
    }
    if (coversGroupLeftBehind) {
      group.leftBehind = false;
    }
  }
}
