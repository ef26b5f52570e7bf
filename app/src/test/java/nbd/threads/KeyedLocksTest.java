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
import nbd.testing.Running;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Callers with the same key, one after the other. */
@Timeout(300)
final class KeyedLocksTest {
  private final KeyedLocks locks = new KeyedLocks();

  @Test
  void ofTheSameKeyOneActsAtATimeAndOthersGoOn() throws IOException {
    CountDownLatch begun = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    AtomicInteger acting = new AtomicInteger();
    AtomicInteger acted = new AtomicInteger();
    List<Running> slow = new ArrayList<>();
    for (int i = 0; i < 70; i++) {
      slow.add(
          Running.start(
              () ->
                  locks.withLock(
                      "slow",
                      () -> {
                        assertThat(acting.incrementAndGet()).isEqualTo(1);
                        begun.countDown();
                        Eventually.await(go);
                        acting.decrementAndGet();
                        return acted.incrementAndGet();
                      })));
    }
    Eventually.await(begun);
    Running.start(() -> locks.withLock("quick", () -> true)).join();
    assertThat(acted).hasValue(0);
    go.countDown();
    for (Running each : slow) {
      each.join();
    }
    assertThat(acted).hasValue(70);
    assertThat(locks.isEmpty()).isTrue();
  }

  @Test
  void whoeverFailsGivesTheLockBack() throws IOException {
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
