package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.EOFException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import nbd.testing.Eventually;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Calls that may wait for a disk. */
@Timeout(60)
final class BlockingCallsTest {
  private final BlockingCalls calls = BlockingCalls.ofFile("test");

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

  /** Of one file; the carriers are the test's own. */
  private static List<ShortCalls> files(int count, Carriers carriers) {
    List<ShortCalls> files = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      try (BlockingCalls calls = BlockingCalls.ofFile("file", carriers)) {
        files.add(calls.writes());
      }
    }
    return files;
  }

  /** The carriers that would be blocked are those of the permits, however many files hang. */
  @Test
  void howeverManyFilesHangOnlySoManyCallsBlockACarrier() throws Exception {
    List<ShortCalls> files = files(10, new Carriers(3, Carriers.Scheduler.NONE));
    CountDownLatch asked = new CountDownLatch(10);
    CountDownLatch go = new CountDownLatch(1);
    AtomicInteger inside = new AtomicInteger();
    List<Thread> threads = new ArrayList<>();
    for (ShortCalls file : files) {
      threads.add(
          Thread.ofVirtual()
              .start(
                  () -> {
                    int began = file.begin();
                    inside.addAndGet(began == ShortCalls.REFUSED ? 0 : 1);
                    asked.countDown();
                    if (began != ShortCalls.REFUSED) {
                      Eventually.await(go);
                      file.end(began);
                    }
                  }));
    }
    Eventually.await(asked);
    assertThat(inside).hasValue(3);
    go.countDown();
    for (Thread thread : threads) {
      thread.join();
    }
    List<Integer> begun = new ArrayList<>();
    Thread.ofVirtual().start(() -> begun.add(files.getFirst().begin())).join();
    assertThat(begun).as("the permits are free again").doesNotContain(ShortCalls.REFUSED);
  }

  @Test
  void anyNumberOfFilesOfADirectoryMayHang() throws Exception {
    try (BlockingCalls directory = BlockingCalls.ofManyFiles("directory")) {
      CountDownLatch begun = new CountDownLatch(100);
      CountDownLatch go = new CountDownLatch(1);
      for (int i = 0; i < 100; i++) {
        Thread.ofVirtual()
            .start(
                () -> {
                  try {
                    directory.run(
                        () -> {
                          begun.countDown();
                          Eventually.await(go);
                        });
                  } catch (IOException impossible) {
                    throw new AssertionError(impossible);
                  }
                });
      }
      Eventually.await(begun);
      go.countDown();
    }
  }
}
