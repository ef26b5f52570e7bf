package nbd.client;

import java.time.Duration;
import java.util.concurrent.Future;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * The time limit of an attempt to connect, from resolving the host's name to the end of the
 * handshake. {@link ConnectAttempts} may end the attempt earlier.
 */
final class ConnectDeadline implements AutoCloseable {
  private final ConnectAttempts attempts;
  private final Future<?> alarm;

  /** Guards the two fields below: once {@code ended} is set, {@code ending} has run. */
  private final ReentrantLock lock = new ReentrantLock();

  private Runnable ending = () -> {};
  private @Nullable String ended;

  ConnectDeadline(Duration timeout, ConnectAttempts attempts) {
    this.attempts = attempts;
    this.alarm =
        Timers.after(
            timeout,
            () -> end("the server did not complete the handshake within " + described(timeout)));
    attempts.add(this);
  }

  /** Ends the attempt; the first reason is kept. */
  void end(String reason) {
    lock.lock();
    try {
      if (ended == null) {
        ended = reason;
        ending.run();
      }
    } finally {
      lock.unlock();
    }
  }

  /**
   * Sets what ends the current step of the attempt, and does it at once if the attempt has ended.
   *
   * @param step never waits and never throws
   */
  void guard(Runnable step) {
    lock.lock();
    try {
      ending = step;
      if (ended != null) {
        step.run();
      }
    } finally {
      lock.unlock();
    }
  }

  /** Says why the attempt was ended, which later failures follow from; null if it was not. */
  @Nullable String ended() {
    lock.lock();
    try {
      return ended;
    } finally {
      lock.unlock();
    }
  }

  static String described(Duration duration) {
    return duration.toMillis() % 1000 == 0
        ? duration.toSeconds() + " s"
        : duration.toMillis() + " ms";
  }

  /** Ends the time limit; false if the attempt was ended before. */
  boolean met() {
    close();
    return ended() == null;
  }

  @Override
  public void close() {
    attempts.remove(this);
    alarm.cancel(false);
    guard(() -> {});
  }
}
