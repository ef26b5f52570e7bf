package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.EOFException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import nbd.testing.Eventually;
import nbd.testing.Running;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Calls that may wait for a disk. */
@Timeout(300)
final class BlockingCallsTest {
  private final BlockingCalls calls = BlockingCalls.ofFile("test");
  private final CountDownLatch go = new CountDownLatch(1);
  private final List<Running> running = new ArrayList<>();

  @AfterEach
  void close() {
    calls.close();
  }

  /** Starts calls that hang until {@link #go}. */
  private void hang(BlockingCalls where, int count) {
    CountDownLatch begun = new CountDownLatch(count);
    for (int i = 0; i < count; i++) {
      running.add(
          Running.start(
              () ->
                  where.run(
                      () -> {
                        begun.countDown();
                        Eventually.await(go);
                      })));
    }
    Eventually.await(begun);
  }

  private void join() throws IOException {
    for (Running each : running) {
      each.join();
    }
  }

  @Test
  void aVirtualThreadsCallRunsOnAPlatformThread() throws IOException {
    AtomicReference<Thread> where = new AtomicReference<>();
    Running.start(() -> calls.run(() -> where.set(Thread.currentThread()))).join();
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
  void whatACallThrowsIsThrown() throws InterruptedException {
    List<BlockingCalls.Call> failing =
        List.of(
            () -> {
              throw new EOFException("end");
            },
            () -> {
              throw new IllegalStateException("mistake");
            },
            () -> {
              throw new AssertionError("bug");
            });
    List<Throwable> thrown = new ArrayList<>();
    for (BlockingCalls.Call call : failing) {
      Thread.ofVirtual()
          .start(
              () -> {
                try {
                  calls.run(call);
                } catch (IOException | RuntimeException | Error failure) {
                  thrown.add(failure);
                }
              })
          .join();
    }
    assertThat(thrown).extracting(Throwable::getMessage).containsExactly("end", "mistake", "bug");
    assertThat(thrown.getFirst()).isInstanceOf(EOFException.class);
  }

  @Test
  void anInterruptDoesNotEndTheWaiting() throws Exception {
    CountDownLatch begun = new CountDownLatch(1);
    AtomicBoolean done = new AtomicBoolean();
    Running waiting =
        Running.start(
            () -> {
              calls.run(
                  () -> {
                    begun.countDown();
                    Eventually.await(go);
                    done.set(true);
                  });
              assertThat(done).isTrue();
              assertThat(Thread.interrupted()).as("the interrupt is kept").isTrue();
            });
    Eventually.await(begun);
    waiting.thread().interrupt();
    waiting.awaitParked();
    go.countDown();
    waiting.join();
  }

  @Test
  void aCallThatHangsHoldsNoOtherUp() throws IOException {
    hang(calls, 20);
    Running.start(() -> calls.run(() -> {})).join();
    go.countDown();
    join();
  }

  @Test
  void anyNumberOfFilesOfADirectoryMayHang() throws IOException {
    try (BlockingCalls directory = BlockingCalls.ofManyFiles("directory")) {
      hang(directory, 100);
      go.countDown();
      join();
    }
  }

  @Test
  void afterTheEndNoCallIsMade() {
    calls.close();
    assertThatThrownBy(() -> Running.start(() -> calls.run(() -> {})).join())
        .hasCauseInstanceOf(RejectedExecutionException.class);
  }

  /** The carriers that would be blocked are those of the permits, however many files hang. */
  @Test
  void howeverManyFilesHangOnlySoManyCallsBlockACarrier() throws IOException {
    Carriers carriers = new Carriers(3, Carriers.Scheduler.NONE);
    CountDownLatch asked = new CountDownLatch(10);
    AtomicInteger inside = new AtomicInteger();
    for (int i = 0; i < 10; i++) {
      ShortCalls file = file(carriers);
      running.add(
          Running.start(
              () -> {
                int began = file.begin();
                boolean isRefused = began == ShortCalls.REFUSED;
                inside.addAndGet(isRefused ? 0 : 1);
                asked.countDown();
                if (!isRefused) {
                  Eventually.await(go);
                  file.end(began);
                }
              }));
    }
    Eventually.await(asked);
    assertThat(inside).hasValue(3);
    go.countDown();
    join();
    assertThat(file(carriers).begin())
        .as("the permits are free again")
        .isNotEqualTo(ShortCalls.REFUSED);
  }

  private static ShortCalls file(Carriers carriers) {
    try (BlockingCalls calls = BlockingCalls.ofFile("file", carriers)) {
      return calls.writes();
    }
  }
}
