package nbd.control;

import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import org.tinylog.Logger;

/** Closes a channel, unless it is closed before. */
final class Deadline implements AutoCloseable {
  private static final ScheduledThreadPoolExecutor TIMER =
      new ScheduledThreadPoolExecutor(
          1, Thread.ofPlatform().daemon().name("control timer").factory());

  static {
    TIMER.setRemoveOnCancelPolicy(true);
  }

  private final Future<?> closing;

  private Deadline(Future<?> closing) {
    this.closing = closing;
  }

  static Deadline of(SocketChannel channel, Duration patience) {
    return new Deadline(
        TIMER.schedule(() -> close(channel), patience.toNanos(), TimeUnit.NANOSECONDS));
  }

  private static void close(SocketChannel channel) {
    try {
      channel.close();
    } catch (IOException failure) {
      Logger.debug("control: {}", failure.getMessage());
    }
  }

  @Override
  public void close() {
    closing.cancel(false);
  }
}
