package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.testing.Eventually;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The carriers of this JVM while calls block all that there are usually. */
@Timeout(300)
final class BlockedCarriersTest {
  /** More than the scheduler has queues for threads that are no carriers. */
  private static final int QUEUES = 512;

  private final int usual =
      Integer.getInteger(
          "jdk.virtualThreadScheduler.parallelism", Runtime.getRuntime().availableProcessors());

  /**
   * The scheduler wakes a carrier only for a task that comes into an empty queue: here no queue is
   * empty any more when the watch adds a carrier.
   */
  @Test
  void otherVirtualThreadsRunAlthoughTheyCameBeforeACarrierWasAdded() throws Exception {
    AtomicInteger blocked = new AtomicInteger();
    AtomicInteger ran = new AtomicInteger();
    long end = System.nanoTime() + TimeUnit.MINUTES.toNanos(2);
    List<Thread> calls = new ArrayList<>();
    for (int i = 0; i < usual; i++) {
      calls.add(Thread.startVirtualThread(() -> block(blocked, ran, end)));
    }
    Eventually.isTrue("all carriers are blocked", () -> blocked.get() == usual);
    for (int i = 0; i < QUEUES; i++) {
      Thread.ofPlatform().start(() -> Thread.startVirtualThread(ran::incrementAndGet));
    }
    for (Thread call : calls) {
      call.join();
    }
    assertThat(System.nanoTime() - end).as("it did not end by its time").isNegative();
  }

  /** Blocks the carrier, as a call into the kernel would, until all others have run. */
  private static void block(AtomicInteger blocked, AtomicInteger ran, long end) {
    // A second is the time in which the others come: the watch takes the call for one that begins.
    int permit = Carriers.MACHINE.enter(System.nanoTime() + TimeUnit.SECONDS.toNanos(1));
    blocked.incrementAndGet();
    while (ran.get() < QUEUES && System.nanoTime() - end < 0) {
      Thread.onSpinWait();
    }
    Carriers.MACHINE.leave(permit);
  }
}
