package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.EOFException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.testing.Eventually;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Callers with the same key, one after the other. */
@Timeout(60)
final class KeyedLocksTest {
  private final KeyedLocks locks = new KeyedLocks();

  private Thread start(String key, BlockingCalls.Call action) {
    return Thread.ofVirtual()
        .start(
            () -> {
              try {
                locks.withLock(
                    key,
                    () -> {
                      action.run();
                      return true;
                    });
              } catch (IOException impossible) {
                throw new AssertionError(impossible);
              }
            });
  }

  @Test
  void ofTheSameKeyOneActsAtATimeAndOthersGoOn() throws Exception {
    CountDownLatch begun = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    AtomicInteger acting = new AtomicInteger();
    AtomicInteger acted = new AtomicInteger();
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < 70; i++) {
      threads.add(
          start(
              "slow",
              () -> {
                assertThat(acting.incrementAndGet()).isEqualTo(1);
                begun.countDown();
                Eventually.await(go);
                acting.decrementAndGet();
                acted.incrementAndGet();
              }));
    }
    Eventually.await(begun);
    start("quick", () -> {}).join();
    assertThat(acted).hasValue(0);
    go.countDown();
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(acted).hasValue(70);
    assertThat(locks.isEmpty()).isTrue();
  }

  @Test
  void whoeverFailsGivesTheTurnBack() throws IOException {
    assertThatThrownBy(
            () ->
                locks.withLock(
                    "a",
                    () -> {
                      throw new EOFException();
                    }))
        .isInstanceOf(EOFException.class);
    assertThat(locks.isEmpty()).isTrue();
    assertThat(locks.withLock("a", () -> 7)).isEqualTo(7);
  }
}
