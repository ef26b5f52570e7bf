package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;
import nbd.testing.FakeBackend;
import org.jetbrains.lincheck.Lincheck;
import org.junit.jupiter.api.Test;

/**
 * A systematic exploration of the races between a mark, which takes no lock, and a flush that finds
 * the handle clean.
 */
class MarksModelTest {
  /**
   * A static reference: Lincheck takes objects that only lambdas share for a thread's own, and does
   * not explore them.
   */
  private static final AtomicReference<Object> SHARED = new AtomicReference<>();

  /** A handle made before the exploration: if made within, Lincheck switches no threads. */
  private static final Handle HANDLE = handle();

  /** A decision made before the exploration, as the handle is. */
  private static final Decision DECISION = decision();

  /** Enough to see each test fail without the rule that it is for. */
  private static final int INVOCATIONS = 400;

  @Test
  void aHandleWithUncoveredWritesIsAlwaysFound() {
    exploreWrites(true);
  }

  @Test
  void aHandleWhoseEnrolmentAFlushOvertakesIsAlwaysFound() {
    exploreWrites(false);
  }

  private static void exploreWrites(boolean enrolledBefore) {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          Member member = member();
          Group group = member.scope.group;
          if (enrolledBefore) {
            member.wrote(member.beginWrite());
          }
          inThreads(
              () -> {
                member.wrote(member.beginWrite());
                member.wrote(member.beginWrite());
              },
              () -> settleAll(member));
          locked(
              group,
              () -> {
                group.drainInboxes();
                if (member.writes.uncovered() && !member.scope.dirty.contains(member)) {
                  throw new AssertionError("a write is forgotten");
                }
              });
        });
  }

  @Test
  void aHandleThatMayHoldOldDataIsAlwaysFound() {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          Member member = member();
          Group group = member.scope.group;
          member.markRead();
          inThreads(
              () -> {
                member.markRead();
                member.markRead();
              },
              () -> settleAll(member));
          locked(
              group,
              () -> {
                group.drainInboxes();
                if (member.reads.any() && !member.scope.readers.contains(member)) {
                  throw new AssertionError("a read is forgotten");
                }
              });
        });
  }

  @Test
  void aReadThatFetchesWhileAFlushRunsStaysMarked() {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          ReadMarks reads = new ReadMarks();
          SHARED.set(reads);
          AtomicInteger flushStarted = new AtomicInteger();
          AtomicInteger fetchedThen = new AtomicInteger();
          inThreads(
              () -> {
                ReadMarks.Phase phase = reads.enter();
                phase.note(0);
                fetchedThen.set(flushStarted.get());
                reads.leave(phase);
              },
              () -> {
                ReadMarks.Phase ended = reads.turnWithoutWaiting();
                flushStarted.set(1);
                if (ended != null) {
                  ended.clear();
                }
              });
          if (fetchedThen.get() == 1 && !reads.any()) {
            throw new AssertionError("what it fetched is taken for flushed");
          }
        });
  }

  @Test
  void aFlushThatWaitsForReadsWaitsForAllThatBeganBefore() {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          ReadMarks reads = new ReadMarks();
          SHARED.set(reads);
          AtomicInteger time = new AtomicInteger();
          AtomicInteger readingSince = new AtomicInteger(Integer.MAX_VALUE);
          inThreads(
              () -> {
                ReadMarks.Phase phase = reads.enter();
                readingSince.set(time.get());
                readingSince.set(Integer.MAX_VALUE);
                reads.leave(phase);
              },
              () -> {
                for (int turn = 1; turn <= 2; turn++) {
                  time.set(turn);
                  reads.turnAndWait().clear();
                  if (readingSince.get() < turn) {
                    throw new AssertionError("a read that began before is still in flight");
                  }
                }
              });
        });
  }

  @Test
  void aReadIsNeverTakenForNewerThanItIs() {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          Member member = member();
          inThreads(
              member.scope::advance,
              () -> {
                // Only its own scope has advanced, so nothing that others wrote is visible.
                if (member.scope.epoch() > 0) {
                  throw new AssertionError("too high an epoch");
                }
              });
        });
  }

  @Test
  void whatOthersMadeVisibleIsNotOverlookedWhileAScopesOwnWritesBecomeVisible() {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          Member member = member();
          Group group = member.scope.group;
          member.markRead();
          locked(group, group::drainInboxes);
          new FlushScope(group, "another", "").advance();
          inThreads(
              member.scope::advance,
              () -> {
                if (!member.scope.isOutdated()) {
                  throw new AssertionError("the read is taken for newer than it is");
                }
              });
        });
  }

  /** Settles a member's writes and reads, as a successful flush does. */
  private static void settleAll(Member member) {
    Group group = member.scope.group;
    locked(
        group,
        () -> {
          group.drainInboxes();
          if (member.scope.dirty.contains(member)) {
            member.writes.cover(member.writes.completed());
          }
          if (member.scope.readers.contains(member)) {
            ReadMarks.Phase ended = member.reads.turnWithoutWaiting();
            if (ended != null) {
              ended.clear();
            }
          }
          group.settleWrites(member);
          group.settleReads(member);
          group.settle(member.scope);
        });
  }

  private static void locked(Group group, Runnable action) {
    try (var _ = group.locked()) {
      action.run();
    }
  }

  private static Member member() {
    Group group = new Group(MultiConnSettings.DEFAULT, Runnable::run);
    Member member = new Member(HANDLE, DECISION, group.scopeFor("", "", DECISION));
    group.attach(member);
    SHARED.set(member);
    return member;
  }

  private static Handle handle() {
    try {
      return new FakeBackend(8).open("", false);
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  private static Decision decision() {
    try {
      return Decision.of(MultiConnSettings.DEFAULT, Scene.WRITABLE, ThreadModel.PARALLEL);
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  private static void inThreads(Runnable... runnables) {
    AtomicReference<Throwable> failure = new AtomicReference<>();
    List<Thread> threads = new ArrayList<>();
    for (Runnable runnable : runnables) {
      threads.add(
          new Thread(
              () -> {
                try {
                  runnable.run();
                } catch (AssertionError e) {
                  failure.set(e);
                }
              }));
    }
    threads.forEach(Thread::start);
    for (Thread thread : threads) {
      try {
        thread.join();
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
    }
    Throwable thrown = failure.get();
    if (thrown != null) {
      throw new AssertionError(thrown);
    }
  }
}
