package nbd.backend;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.EOFException;
import java.io.IOException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import nbd.testing.Eventually;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Calls that may wait for a disk, and how slow writes are remembered. */
@Timeout(60)
final class BlockingCallsTest {
  private final BlockingCalls calls = new BlockingCalls("test");

  @AfterEach
  void close() {
    calls.close();
  }

  /** Runs on a virtual thread, and gives what it threw. */
  private Throwable onVirtualThread(BlockingCalls.Call call) throws InterruptedException {
    AtomicReference<Throwable> thrown = new AtomicReference<>();
    Thread.ofVirtual()
        .start(
            () -> {
              try {
                calls.run(call);
              } catch (IOException | RuntimeException | Error failure) {
                thrown.set(failure);
              }
            })
        .join();
    return thrown.get();
  }

  @Test
  void aVirtualThreadsCallRunsOnAPlatformThread() throws Exception {
    AtomicReference<Thread> where = new AtomicReference<>();
    assertThat(onVirtualThread(() -> where.set(Thread.currentThread()))).isNull();
    assertThat(where.get().isVirtual()).isFalse();
    assertThat(where.get().getName()).startsWith("test ");
  }

  @Test
  void aPlatformThreadsCallRunsAtOnce() throws IOException {
    AtomicReference<Thread> where = new AtomicReference<>();
    calls.run(() -> where.set(Thread.currentThread()));
    assertThat(where.get()).isEqualTo(Thread.currentThread());
  }

  @Test
  void whatACallThrowsIsThrown() throws Exception {
    for (Throwable failure :
        new Throwable[] {
          new EOFException("end"), new IllegalStateException("mistake"), new AssertionError("bug")
        }) {
      Throwable thrown =
          onVirtualThread(
              () -> {
                switch (failure) {
                  case IOException io -> throw io;
                  case RuntimeException unchecked -> throw unchecked;
                  case Error error -> throw error;
                  default -> throw new IOException(failure);
                }
              });
      assertThat(thrown).isSameAs(failure);
    }
  }

  @Test
  void anInterruptDoesNotEndTheWaiting() throws Exception {
    CountDownLatch begun = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    AtomicBoolean done = new AtomicBoolean();
    FutureTask<Boolean> task =
        new FutureTask<>(
            () -> {
              calls.run(
                  () -> {
                    begun.countDown();
                    Eventually.await(go);
                    done.set(true);
                  });
              assertThat(done).isTrue();
              return Thread.interrupted();
            });
    Thread waiting = Thread.ofVirtual().start(task);
    Eventually.await(begun);
    waiting.interrupt();
    Eventually.isTrue("it waits again", () -> !done.get() && isWaiting(waiting));
    assertThat(task.isDone()).isFalse();
    go.countDown();
    assertThat(task.get()).as("the interrupt is kept").isTrue();
  }

  private static boolean isWaiting(Thread thread) {
    return thread.getState() == Thread.State.WAITING;
  }

  @Test
  void aCallThatHangsHoldsNoOtherUp() throws Exception {
    CountDownLatch begun = new CountDownLatch(20);
    CountDownLatch go = new CountDownLatch(1);
    FutureTask<?>[] hanging = new FutureTask<?>[20];
    for (int i = 0; i < hanging.length; i++) {
      hanging[i] =
          new FutureTask<>(
              () -> {
                calls.run(
                    () -> {
                      begun.countDown();
                      Eventually.await(go);
                    });
                return null;
              });
      Thread.ofVirtual().start(hanging[i]);
    }
    Eventually.await(begun);
    assertThat(onVirtualThread(() -> {})).isNull();
    go.countDown();
    for (FutureTask<?> task : hanging) {
      task.get();
    }
  }

  @Test
  void afterTheEndNoCallIsMade() throws Exception {
    calls.close();
    FutureTask<Void> late =
        new FutureTask<>(
            () -> {
              calls.run(() -> {});
              return null;
            });
    Thread.ofVirtual().start(late);
    assertThatThrownBy(late::get).isInstanceOf(ExecutionException.class);
  }

  @Test
  void afterASlowWriteTheNextAreHandedOnForAWhile() {
    SlowWrites writes = new SlowWrites();
    long ms = 1_000_000;
    long now = System.nanoTime() + 10_000 * ms;
    assertThat(writes.expected(now)).isFalse();
    writes.wrote(now, now + 19 * ms);
    assertThat(writes.expected(now + 19 * ms)).as("quick enough").isFalse();
    writes.wrote(now, now + 21 * ms);
    assertThat(writes.expected(now + 21 * ms)).isTrue();
    assertThat(writes.expected(now + (21 + 249) * ms)).isTrue();
    assertThat(writes.expected(now + (21 + 251) * ms)).isFalse();
  }

  @Test
  void slowAgainMeansLongerAndQuickMeansForgotten() {
    SlowWrites writes = new SlowWrites();
    long ms = 1_000_000;
    long now = System.nanoTime() + 10_000 * ms;
    long longest = 0;
    for (int i = 0; i < 20; i++) {
      writes.wrote(now, now + 50 * ms);
      long end = now + 50 * ms;
      long held = 0;
      while (writes.expected(end + held)) {
        held += 50 * ms;
      }
      assertThat(held).isGreaterThanOrEqualTo(longest);
      longest = held;
      now = end + held;
    }
    assertThat(longest).isEqualTo(8000 * ms);
    now += 1000 * ms;
    writes.wrote(now, now + 50 * ms);
    assertThat(writes.expected(now + 50 * ms + 251 * ms)).as("a new beginning").isFalse();
  }
}
