package nbd.client;

import java.time.Duration;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/** The timer thread of all clients; it ends while no timer is set. */
final class Timers {
  private static final long IDLE_SECONDS = 5;

  private static final ScheduledThreadPoolExecutor TIMER =
      new ScheduledThreadPoolExecutor(
          1, task -> Thread.ofPlatform().daemon().name("client timer").unstarted(task));

  static {
    TIMER.setRemoveOnCancelPolicy(true);
    TIMER.setKeepAliveTime(IDLE_SECONDS, TimeUnit.SECONDS);
    TIMER.allowCoreThreadTimeOut(true);
  }

  private Timers() {}

  /**
   * Runs a task later.
   *
   * @param task never waits
   */
  static Future<?> after(Duration delay, Runnable task) {
    return TIMER.schedule(task, TimeUnit.NANOSECONDS.convert(delay), TimeUnit.NANOSECONDS);
  }
}
