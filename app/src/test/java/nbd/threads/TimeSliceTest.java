package nbd.threads;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Stream;
import nbd.testing.Eventually;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Connections whose clients are so quick that they never wait. */
@Timeout(300)
final class TimeSliceTest {
  private static final int CARRIERS =
      Integer.getInteger(
          "jdk.virtualThreadScheduler.parallelism", Runtime.getRuntime().availableProcessors());

  private static final int ON_EACH = 3;

  private final CountDownLatch other = new CountDownLatch(1);
  private final CountDownLatch parked = new CountDownLatch(CARRIERS * ON_EACH);
  private final AtomicInteger wakers = new AtomicInteger();

  /** Each carrier has some in its own queue: a thread that it wakes comes into that. */
  @Test
  void connectionsThatNeverWaitLeaveTimeForOthers() throws Exception {
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < CARRIERS; i++) {
      List<Thread> busy = Stream.generate(this::busy).limit(ON_EACH).toList();
      threads.addAll(busy);
      threads.add(Thread.ofVirtual().unstarted(() -> wake(busy)));
    }
    threads.forEach(Thread::start);
    Eventually.isTrue("all carriers have woken theirs", () -> wakers.get() == CARRIERS);
    threads.add(Thread.startVirtualThread(other::countDown));
    for (Thread thread : threads) {
      thread.join();
    }
  }

  private Thread busy() {
    return Thread.ofVirtual()
        .unstarted(
            () -> {
              parked.countDown();
              LockSupport.park();
              TimeSlice slice = new TimeSlice(() -> true);
              while (other.getCount() > 0) {
                slice.afterReplies();
              }
            });
  }

  private void wake(List<Thread> busy) {
    Eventually.await(parked);
    wakers.incrementAndGet();
    while (wakers.get() < CARRIERS) {
      Thread.onSpinWait();
    }
    busy.forEach(LockSupport::unpark);
  }
}
