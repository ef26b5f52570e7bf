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
 * Accepts connections while there are places for them, and logs what keeps clients waiting: a limit
 * that is reached, once a minute at most, and the system's refusals, once when they begin and once
 * when they end. Used by the accepting thread only.
 */
final class Acceptance {
  /** How long accepting pauses when the system has no file descriptors or memory left. */
  private static final long PAUSE_MILLIS = 100;

  /** How often is looked whether a client waits, while there is no place for one. */
  private static final long LOOK_MILLIS = 250;

  private static final Duration BETWEEN_LINES = Duration.ofMinutes(1);

  /** A refusal that comes again within this time belongs to the same trouble. */
  private static final Duration CALM = Duration.ofSeconds(5);

  private final ServerSocketChannel listener;
  private final Semaphore places;
  private final int most;
  private final LongSupplier nanoTime;

  private long saidAt;
  private long failures;
  private long firstFailure;
  private long lastFailure;

  /**
   * Accepts on a socket.
   *
   * @param listener bound, in blocking mode
   * @param places one for each connection that there may be; {@link #next} takes one
   * @param most how many places there are in all, for the log
   * @param nanoTime the clock
   */
  Acceptance(ServerSocketChannel listener, Semaphore places, int most, LongSupplier nanoTime) {
    this.listener = listener;
    this.places = places;
    this.most = most;
    this.nanoTime = nanoTime;
    this.saidAt = nanoTime.getAsLong() - BETWEEN_LINES.toNanos();
  }

  /**
   * Waits for a place, then for a client.
   *
   * @return the client, whose place is taken
   * @throws IOException if none could be accepted; no place is taken then
   */
  SocketChannel next() throws IOException {
    takePlace();
    boolean accepted = false;
    try {
      SocketChannel channel = listener.accept();
      accepted = true;
      noteSuccess();
      return channel;
    } finally {
      if (!accepted) {
        places.release();
      }
    }
  }

  /** Notes that {@link #next} failed, and lets some time pass. */
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

  private void takePlace() {
    boolean taken = places.tryAcquire();
    if (!taken && nanoTime.getAsLong() - saidAt >= BETWEEN_LINES.toNanos()) {
      taken = takePlaceBeforeAnybodyWaits();
    }
    if (!taken) {
      places.acquireUninterruptibly();
    }
  }

  /** Returns true with a place, or false when a client was seen waiting for one. */
  private boolean takePlaceBeforeAnybodyWaits() {
    boolean taken = false;
    try (Selector selector = Selector.open()) {
      listener.configureBlocking(false);
      SelectionKey key = listener.register(selector, SelectionKey.OP_ACCEPT);
      try {
        do {
          taken = places.tryAcquire(LOOK_MILLIS, TimeUnit.MILLISECONDS);
        } while (!taken && selector.selectNow() == 0);
        if (!taken) {
          saidAt = nanoTime.getAsLong();
          Logger.info("a client waits to be accepted: there may be {} at a time", most);
        }
      } finally {
        key.cancel();
        selector.selectNow();
        listener.configureBlocking(true);
      }
    } catch (IOException unknown) {
      Logger.debug("whether clients wait is not known: {}", unknown.getMessage());
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
    return taken;
  }
}
