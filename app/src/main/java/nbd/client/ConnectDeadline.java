package nbd.client;

import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.concurrent.Future;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Ends an attempt to connect, from finding the server's address to the end of the handshake, when
 * that takes too long, or when nobody wants it any more.
 */
final class ConnectDeadline implements AutoCloseable {
  private final ConnectAttempts attempts;
  private final Future<?> alarm;

  /** Guards what follows: once the attempt has been ended, nothing guarded goes on. */
  private final ReentrantLock lock = new ReentrantLock();

  private @Nullable Runnable guarded;
  private @Nullable String ended;

  ConnectDeadline(Duration timeout, ConnectAttempts attempts) {
    this.attempts = attempts;
    this.alarm =
        Timers.after(
            timeout,
            () -> end("the server did not complete the handshake within " + described(timeout)));
    attempts.add(this);
  }

  /** Ends the attempt; the first reason counts. */
  void end(String reason) {
    lock.lock();
    try {
      if (ended == null) {
        ended = reason;
        if (guarded != null) {
          guarded.run();
        }
      }
    } finally {
      lock.unlock();
    }
  }

  /** This socket is the one from now on. */
  void guard(SocketChannel socket) {
    guard(() -> close(socket));
  }

  /**
   * From now on this is done when the attempt ends, at once if it has.
   *
   * @param ending never waits and never throws
   */
  void guard(Runnable ending) {
    lock.lock();
    try {
      guarded = ending;
      if (ended != null) {
        ending.run();
      }
    } finally {
      lock.unlock();
    }
  }

  private static void close(SocketChannel socket) {
    try {
      socket.close();
    } catch (IOException ignored) {
      // It is gone, which is what was wanted.
    }
  }

  /** Why the attempt was ended, of which later failures are a consequence; null if it was not. */
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

  /** Nothing is guarded any more; false if it was too late. */
  boolean met() {
    close();
    return ended() == null;
  }

  @Override
  public void close() {
    attempts.remove(this);
    alarm.cancel(false);
    lock.lock();
    try {
      guarded = null;
    } finally {
      lock.unlock();
    }
  }
}
