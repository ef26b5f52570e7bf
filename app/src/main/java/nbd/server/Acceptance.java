package nbd.server;

import java.io.IOException;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import org.tinylog.Logger;

/**
 * Accepts connections up to the limit, and logs what keeps clients waiting: the limit, once a
 * minute at most, and failures of the system, when they begin and when they end. Used by the
 * accepting thread only.
 */
final class Acceptance {
  /** The pause after a failure: the system may have no file descriptors or memory left. */
  private static final long PAUSE_MILLIS = 100;

  /** The interval for noticing a waiting client while the limit is reached. */
  private static final long LOOK_MILLIS = 250;

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
   * Waits for a permit, then for a client.
   *
   * @return the client; the caller releases its permit
   * @throws IOException if none could be accepted; no permit is taken then
   */
  SocketChannel next() throws IOException {
    acquire();
    boolean accepted = false;
    try {
      SocketChannel channel = listener.accept();
      accepted = true;
      noteSuccess();
      return channel;
    } finally {
      if (!accepted) {
        permits.release();
      }
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

  private void acquire() {
    boolean taken = permits.tryAcquire();
    if (!taken && nanoTime.getAsLong() - loggedAt >= BETWEEN_LINES.toNanos()) {
      taken = acquireBeforeAnybodyWaits();
    }
    if (!taken) {
      permits.acquireUninterruptibly();
    }
  }

  /** Waits for a permit; returns false without one, and logs it, when a client waits. */
  private boolean acquireBeforeAnybodyWaits() {
    boolean taken = false;
    try (Selector selector = Selector.open()) {
      listener.configureBlocking(false);
      SelectionKey key = listener.register(selector, SelectionKey.OP_ACCEPT);
      try {
        do {
          taken = permits.tryAcquire(LOOK_MILLIS, TimeUnit.MILLISECONDS);
        } while (!taken && selector.selectNow() == 0);
        if (!taken) {
          loggedAt = nanoTime.getAsLong();
          Logger.info("a client waits to be accepted: there may be {} at a time", limit);
        }
      } finally {
        key.cancel();
        selector.selectNow();
        listener.configureBlocking(true);
      }
    } catch (IOException unknown) {
      Logger.debug("waiting clients cannot be noticed: {}", unknown.getMessage());
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
    return taken;
  }
}
