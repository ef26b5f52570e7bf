package nbd.threads;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.jetbrains.lincheck.Lincheck;
import org.junit.jupiter.api.Test;

/** The interleavings of callers that want to block a carrier. */
final class CarriersModelTest {
  /**
   * A static reference: Lincheck takes objects that only lambdas share for a thread's own, and does
   * not explore them.
   */
  private static final AtomicReference<Object> SHARED = new AtomicReference<>();

  private static final int INVOCATIONS = Integer.getInteger("nbd.carriers.invocations", 400);

  @Test
  void neverAreMorePermitsTakenThanThereAre() {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          Carriers carriers = new Carriers(1, Carriers.Scheduler.NONE);
          AtomicInteger taken = new AtomicInteger();
          SHARED.set(carriers);
          inThreads(
              3,
              () -> {
                int permit = carriers.enter(5);
                if (permit != Carriers.NONE) {
                  check(taken.incrementAndGet() == 1, "two have the same permit");
                  taken.decrementAndGet();
                  carriers.leave(permit);
                }
              });
          check(carriers.enter(5) == 0, "a permit is gone");
        });
  }

  /** Racing calls must not leave the begin of one that seems to hang for ever. */
  @Test
  void afterAllCallsHaveEndedTheNextMayBegin() {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          ShortCalls calls = unknown();
          AtomicInteger clock = new AtomicInteger(1);
          SHARED.set(calls);
          check(calls.mayBegin(0), "it is held");
          calls.ended(0, 1);
          inThreads(
              2,
              () -> {
                for (int i = 0; i < 2; i++) {
                  long now = clock.incrementAndGet();
                  if (calls.mayBegin(now)) {
                    calls.ended(now, now);
                  }
                }
              });
          check(calls.mayBegin(1L << 40), "a call that has ended seems to hang");
        });
  }

  @Test
  void ofAFileThatNobodyKnowsOneCallRunsAtATime() {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          ShortCalls calls = unknown();
          AtomicInteger begun = new AtomicInteger();
          SHARED.set(calls);
          inThreads(
              3,
              () -> {
                if (calls.mayBegin(1)) {
                  begun.incrementAndGet();
                }
              });
          check(begun.get() == 1, "several were tried");
        });
  }

  private static ShortCalls unknown() {
    return new ShortCalls(new Carriers(0, Carriers.Scheduler.NONE), Duration.ofMillis(1), 0);
  }

  static void check(boolean holds, String otherwise) {
    if (!holds) {
      throw new AssertionError(otherwise);
    }
  }

  static void inThreads(int count, Runnable action) {
    inThreads(Collections.nCopies(count, action));
  }

  /** Runs each action in a thread. */
  static void inThreads(List<Runnable> actions) {
    AtomicReference<Throwable> failure = new AtomicReference<>();
    List<Thread> threads = new ArrayList<>();
    for (Runnable action : actions) {
      threads.add(
          new Thread(
              () -> {
                try {
                  action.run();
                } catch (AssertionError wrong) {
                  failure.set(wrong);
                }
              }));
    }
    threads.forEach(Thread::start);
    for (Thread thread : threads) {
      try {
        thread.join();
      } catch (InterruptedException interrupted) {
        throw new AssertionError(interrupted);
      }
    }
    Throwable thrown = failure.get();
    if (thrown != null) {
      throw new AssertionError(thrown);
    }
  }
}
