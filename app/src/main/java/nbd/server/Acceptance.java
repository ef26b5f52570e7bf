package nbd.server;

import java.io.IOException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import org.tinylog.Logger;

/**
 * Accepts connections on one socket up to the limit, and logs what keeps clients waiting: the
 * limit, once a minute at most, and failures of the system, when they begin and when they end.
 * Beyond the limit one client is accepted, and hears nothing before it is served. Used by the
 * accepting thread only.
 */
final class Acceptance {
  /** The pause after a failure: the system may have no file descriptors or memory left. */
  private static final long PAUSE_MILLIS = 100;

  /** The time that a client may wait because of the limit without a line in the log. */
  private static final long SHORT_MILLIS = 250;

  private static final Duration BETWEEN_LINES = Duration.ofMinutes(1);

  /** A failure within this time after another one belongs to the same trouble. */
  private static final Duration CALM = Duration.ofSeconds(5);

  private final ServerSocketChannel listener;
  private final Semaphore permits;
  private final int limit;
  private final LongSupplier nanoTime;

  private long loggedAt;
  private long failures;
  private long firstFailure;
  private long lastFailure;

  /**
   * Accepts on a socket.
   *
   * @param listener bound, in blocking mode
   * @param permits one for each connection that there may be at a time
   * @param limit the number of permits, for the log
   * @param nanoTime the clock
   */
  Acceptance(ServerSocketChannel listener, Semaphore permits, int limit, LongSupplier nanoTime) {
    this.listener = listener;
    this.permits = permits;
    this.limit = limit;
    this.nanoTime = nanoTime;
    this.loggedAt = nanoTime.getAsLong() - BETWEEN_LINES.toNanos();
  }

  /**
   * Waits for a client, then for a permit: other sockets may share the permits.
   *
   * @return the client; the caller releases its permit
   * @throws IOException if none could be accepted; no permit is taken then
   */
  SocketChannel next() throws IOException {
    SocketChannel channel = listener.accept();
    boolean taken = false;
    try {
      noteSuccess();
      if (!acquireSoon()) {
        noteLimit();
        permits.acquireUninterruptibly();
      }
      taken = true;
      return channel;
    } finally {
      if (!taken) {
        channel.close();
      }
    }
  }

  private boolean acquireSoon() {
    try {
      return permits.tryAcquire(SHORT_MILLIS, TimeUnit.MILLISECONDS);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  private void noteLimit() {
    long now = nanoTime.getAsLong();
    if (now - loggedAt >= BETWEEN_LINES.toNanos()) {
      loggedAt = now;
      Logger.info("a client waits for its connection: there may be {} at a time", limit);
    }
  }

  /** Notes that {@link #next} failed, and pauses. */
  void failed(IOException failure) {
    noteFailure(failure);
    try {
      Thread.sleep(PAUSE_MILLIS);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  void noteFailure(IOException failure) {
    lastFailure = nanoTime.getAsLong();
    if (failures++ == 0) {
      firstFailure = lastFailure;
      Logger.error("connections cannot be accepted: {}", failure.getMessage());
    }
  }

  void noteSuccess() {
    if (failures > 0 && nanoTime.getAsLong() - lastFailure >= CALM.toNanos()) {
      Logger.info(
          "connections can be accepted again; it failed {} times in {} s",
          failures,
          TimeUnit.NANOSECONDS.toSeconds(lastFailure - firstFailure));
      failures = 0;
    }
  }
}
