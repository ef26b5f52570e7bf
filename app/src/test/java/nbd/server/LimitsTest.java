package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import nbd.testing.Eventually;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What bounds the memory of requests: places of a connection, bytes of all, buffers. */
@Timeout(60)
final class LimitsTest {
  private static final long MIB = 1 << 20;

  @Test
  void aConnectionHasSoManyPlaces() {
    InFlight inFlight = new InFlight();
    for (int i = 0; i < InFlight.MAXIMUM_REQUESTS; i++) {
      assertThat(inFlight.tryEnter(0)).isTrue();
    }
    assertThat(inFlight.tryEnter(0)).isFalse();
    inFlight.leave(0);
    assertThat(inFlight.tryEnter(0)).isTrue();
  }

  @Test
  void aConnectionHoldsSoManyBytesOrOneRequest() {
    InFlight inFlight = new InFlight();
    assertThat(inFlight.tryEnter(InFlight.MAXIMUM_BYTES + 1)).as("alone").isTrue();
    assertThat(inFlight.tryEnter(0)).isFalse();
    inFlight.leave(InFlight.MAXIMUM_BYTES + 1);
    assertThat(inFlight.tryEnter(InFlight.MAXIMUM_BYTES)).isTrue();
    assertThat(inFlight.tryEnter(0)).isTrue();
    assertThat(inFlight.tryEnter(1)).isFalse();
  }

  @Test
  void whoWaitsForAPlaceGetsItWhenOneLeaves() throws Exception {
    InFlight inFlight = new InFlight();
    inFlight.enter(InFlight.MAXIMUM_BYTES);
    Thread waiting = Thread.ofVirtual().start(() -> inFlight.enter(MIB));
    Thread last = Thread.ofVirtual().start(inFlight::awaitNone);
    Eventually.isTrue("both wait", () -> isParked(waiting) && isParked(last));
    inFlight.leave(InFlight.MAXIMUM_BYTES);
    waiting.join();
    inFlight.leave(MIB);
    last.join();
  }

  private static boolean isParked(Thread thread) {
    return thread.getState() == Thread.State.WAITING;
  }

  @Test
  void threadsNeverHoldMoreThanTheBounds() throws Exception {
    InFlight inFlight = new InFlight();
    AtomicLong held = new AtomicLong();
    AtomicLong most = new AtomicLong();
    CountDownLatch done = new CountDownLatch(8);
    for (int i = 0; i < 8; i++) {
      Random random = new Random(i);
      Thread.ofVirtual()
          .start(
              () -> {
                for (int n = 0; n < 2000; n++) {
                  long bytes = random.nextLong(32 * MIB);
                  if (n % 3 != 0 || !inFlight.tryEnter(bytes)) {
                    inFlight.enter(bytes);
                  }
                  most.accumulateAndGet(held.addAndGet(bytes), Math::max);
                  held.addAndGet(-bytes);
                  inFlight.leave(bytes);
                }
                done.countDown();
              });
    }
    Eventually.await(done);
    inFlight.awaitNone();
    assertThat(most.get()).isLessThanOrEqualTo(InFlight.MAXIMUM_BYTES);
    assertThat(inFlight.tryEnter(InFlight.MAXIMUM_BYTES)).as("all came back").isTrue();
  }

  @Test
  void theServersMemoryIsGivenOutUpToItsBound() {
    MemoryBudget budget = new MemoryBudget(100 * MIB);
    assertThat(budget.tryTake(60 * MIB)).isTrue();
    assertThat(budget.tryTake(40 * MIB + 1)).isFalse();
    assertThat(budget.tryTake(40 * MIB)).isTrue();
    assertThat(budget.tryTake(1)).isFalse();
    assertThat(budget.taken()).isEqualTo(100 * MIB);
    budget.giveBack(40 * MIB);
    budget.giveBack(60 * MIB);
    assertThat(budget.taken()).isZero();
  }

  @Test
  void threadsNeverTakeMoreOfABudgetThanThereIs() throws Exception {
    MemoryBudget budget = new MemoryBudget(3);
    AtomicLong most = new AtomicLong();
    CountDownLatch done = new CountDownLatch(8);
    AtomicLong held = new AtomicLong();
    for (int i = 0; i < 8; i++) {
      Thread.ofPlatform()
          .start(
              () -> {
                for (int n = 0; n < 20_000; n++) {
                  if (budget.tryTake(1)) {
                    most.accumulateAndGet(held.incrementAndGet(), Math::max);
                    held.decrementAndGet();
                    budget.giveBack(1);
                  }
                }
                done.countDown();
              });
    }
    Eventually.await(done);
    assertThat(most.get()).isBetween(1L, 3L);
    assertThat(budget.taken()).isZero();
  }

  @Test
  void aBufferHasTheLengthThatWasAskedFor() {
    BufferPool pool = new BufferPool(1L << 30);
    for (int length : new int[] {0, 1, 4095, 4096, 4097, 65_536, (32 << 20) + 16, 1 << 26}) {
      ByteBuffer buffer = pool.take(length);
      assertThat(buffer.remaining()).isEqualTo(length);
      assertThat(buffer.position()).isZero();
      assertThat(buffer.isDirect()).isTrue();
      assertThat(buffer.order()).isEqualTo(ByteOrder.BIG_ENDIAN);
      pool.giveBack(buffer.position(length / 2));
    }
    assertThatThrownBy(() -> pool.take((1 << 26) + 1)).isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(() -> pool.take(-1)).isInstanceOf(IllegalArgumentException.class);
  }

  @Test
  @SuppressWarnings("ReferenceEquality") // that it is the same one is what is tested
  void aBufferThatWasGivenBackIsLentAgainWhole() {
    BufferPool pool = new BufferPool(1L << 30);
    ByteBuffer buffer = pool.take(5000);
    pool.giveBack(buffer.position(100).limit(200));
    ByteBuffer again = pool.take(8000);
    assertThat(again == buffer).isTrue();
    assertThat(again.position()).isZero();
    assertThat(again.limit()).isEqualTo(8000);
  }

  @Test
  void aBufferIsNeverLentTwice() throws Exception {
    BufferPool pool = new BufferPool(1L << 30);
    List<Thread> threads = new ArrayList<>();
    AtomicLong torn = new AtomicLong();
    for (int i = 0; i < 8; i++) {
      long mark = i;
      threads.add(
          Thread.ofPlatform()
              .start(
                  () -> {
                    for (int n = 0; n < 20_000; n++) {
                      ByteBuffer buffer = pool.take(8);
                      buffer.putLong(0, mark);
                      if (n % 64 == 0) {
                        Thread.onSpinWait();
                      }
                      if (buffer.getLong(0) != mark) {
                        torn.incrementAndGet();
                      }
                      pool.giveBack(buffer);
                    }
                  }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(torn.get()).isZero();
  }
}
