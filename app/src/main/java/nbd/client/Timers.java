package nbd.client;

import java.time.Duration;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/** The one thread that looks at the clock for all clients. */
final class Timers {
  private static final long IDLE_SECONDS = 5;

  private static final ScheduledThreadPoolExecutor TIMER = timer();

  private Timers() {}

  private static ScheduledThreadPoolExecutor timer() {
    ScheduledThreadPoolExecutor timer =
        new ScheduledThreadPoolExecutor(
            1, task -> Thread.ofPlatform().daemon().name("client timer").unstarted(task));
    timer.setRemoveOnCancelPolicy(true);
    timer.setKeepAliveTime(IDLE_SECONDS, TimeUnit.SECONDS);
    timer.allowCoreThreadTimeOut(true);
    return timer;
  }

  /**
   * Runs a task later.
   *
   * @param task never waits
   */
  static Future<?> after(Duration delay, Runnable task) {
    return TIMER.schedule(task, nanos(delay), TimeUnit.NANOSECONDS);
  }

  /** In nanoseconds; three centuries for what is longer. */
  static long nanos(Duration duration) {
    try {
      return duration.toNanos();
    } catch (ArithmeticException long292Years) {
      return Long.MAX_VALUE / 2;
    }
  }
}
