package nbd.testing;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/** Ways to wait for another thread, with a time limit that only a hang reaches. */
public final class Eventually {
  private static final Duration HANG = Duration.ofMinutes(2);

  private Eventually() {}

  /** Waits until a condition is true, and fails if it is not within the limit. */
  @SuppressWarnings("BusyWait") // some states have nothing to wait on
  public static void isTrue(String what, BooleanSupplier condition) throws InterruptedException {
    long end = System.nanoTime() + HANG.toNanos();
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).as(what).isLessThan(end);
      Thread.sleep(1);
    }
  }

  /** Waits for a latch without being interrupted, as storage does. */
  public static void await(CountDownLatch latch) {
    boolean interrupted = false;
    while (true) {
      try {
        if (!latch.await(HANG.toSeconds(), TimeUnit.SECONDS)) {
          throw new AssertionError("a latch was never opened");
        }
        break;
      } catch (InterruptedException ignored) {
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
