package nbd.threads;

import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import org.jetbrains.lincheck.Lincheck;
import org.junit.jupiter.api.Test;

/** The interleavings of threads that receive in turn. */
final class ReceiverModelTest {
  /** Static: see {@link CarriersModelTest}. */
  private static final AtomicReference<Object> SHARED = new AtomicReference<>();

  private static final int INVOCATIONS = Integer.getInteger("nbd.receiver.invocations", 1000);

  /** The threads of a pool, which are woken by a count. */
  private static final class Pool {
    final Receiver receiver = new Receiver();
    final AtomicInteger woken = new AtomicInteger(1);
    final AtomicInteger receiving = new AtomicInteger();

    /** Does what a thread of the pool does, for so many requests at the most. */
    void work(int most) {
      int received = 0;
      while (received < most && isWoken()) {
        received += receive(receiver.begin(), most - received);
      }
    }

    /** Receives while this thread may; it keeps the right in every other call but the last. */
    private int receive(boolean begins, int most) {
      int received = 0;
      boolean receives = begins;
      while (receives) {
        CarriersModelTest.check(receiving.incrementAndGet() == 1, "two receive");
        receiving.decrementAndGet();
        received++;
        if (received % 2 == 1 && received < most && receiver.keep()) {
          receives = receiver.endKeeping();
          continue;
        }
        if (receiver.giveUp()) {
          woken.incrementAndGet();
        }
        receives = received < most && receiver.takeBack();
      }
      return received;
    }

    /** Does what a thread does that was woken for a call that takes long. */
    void takeOver() {
      receive(receiver.takeOver(), 2);
    }

    private boolean isWoken() {
      int count = woken.get();
      return count > 0 && woken.compareAndSet(count, count - 1);
    }
  }

  @Test
  void oneThreadReceivesOrIsWokenForIt() {
    test(pool -> CarriersModelTest.inThreads(3, () -> pool.work(2)));
  }

  @Test
  void theRightIsTakenOverOnceFromAThreadThatKeepsIt() {
    test(
        pool ->
            CarriersModelTest.inThreads(
                List.of(() -> pool.work(3), () -> pool.work(3), pool::takeOver)));
  }

  private static void test(Consumer<Pool> threads) {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          Pool pool = new Pool();
          SHARED.set(pool);
          threads.accept(pool);
          CarriersModelTest.check(pool.woken.get() == 1, "woken: " + pool.woken);
          CarriersModelTest.check(pool.receiver.begin(), "the woken thread may not receive");
        });
  }
}
