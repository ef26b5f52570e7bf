package nbd.threads;

import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
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
        boolean receives = receiver.begin();
        while (receives) {
          CarriersModelTest.check(receiving.incrementAndGet() == 1, "two receive");
          receiving.decrementAndGet();
          received++;
          if (receiver.giveUp()) {
            woken.incrementAndGet();
          }
          receives = received < most && receiver.takeBack();
        }
      }
    }

    private boolean isWoken() {
      int count = woken.get();
      return count > 0 && woken.compareAndSet(count, count - 1);
    }
  }

  @Test
  void oneThreadReceivesOrIsWokenForIt() {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          Pool pool = new Pool();
          SHARED.set(pool);
          CarriersModelTest.inThreads(3, () -> pool.work(2));
          CarriersModelTest.check(pool.woken.get() == 1, "woken: " + pool.woken);
          CarriersModelTest.check(pool.receiver.begin(), "the woken thread may not receive");
        });
  }
}
