package nbd.client;

import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.concurrent.Future;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/** Closes the socket that is being connected, or shaken hands on, when that takes too long. */
final class ConnectDeadline implements AutoCloseable {
  private final Duration timeout;
  private final Future<?> alarm;

  /** Guards what follows: once it has passed, no socket stays open. */
  private final ReentrantLock lock = new ReentrantLock();

  private @Nullable SocketChannel guarded;
  private boolean passed;

  ConnectDeadline(Duration timeout) {
    this.timeout = timeout;
    this.alarm = Timers.after(timeout, this::pass);
  }

  private void pass() {
    lock.lock();
    try {
      passed = true;
      if (guarded != null) {
        guarded.close();
      }
    } catch (IOException ignored) {
      // It is gone, which is what was wanted.
    } finally {
      lock.unlock();
    }
  }

  /** This socket is the one from now on. */
  void guard(SocketChannel socket) throws IOException {
    lock.lock();
    try {
      guarded = socket;
      if (passed) {
        socket.close();
      }
    } finally {
      lock.unlock();
    }
  }

  /** Whether it has passed: whatever failed, failed by that. */
  boolean passed() {
    lock.lock();
    try {
      return passed;
    } finally {
      lock.unlock();
    }
  }

  /** For messages. */
  String described() {
    return described(timeout);
  }

  static String described(Duration duration) {
    return duration.toMillis() % 1000 == 0
        ? duration.toSeconds() + " s"
        : duration.toMillis() + " ms";
  }

  /** The socket is not guarded any more; false if it was too late. */
  boolean met() {
    close();
    return !passed();
  }

  @Override
  public void close() {
    alarm.cancel(false);
    lock.lock();
    try {
      guarded = null;
    } finally {
      lock.unlock();
    }
  }
}
