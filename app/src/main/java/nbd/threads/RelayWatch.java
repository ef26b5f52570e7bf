package nbd.threads;

import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Looks for calls that keep their connections from receiving for long, every {@link #LOOK} while
 * there are calls that may.
 *
 * <p>Invariant: while a call keeps the right to receive, the watch is awake or being woken. A
 * caller begins to keep it and then reads {@code asleep}; the watch sets {@code asleep} and then
 * looks.
 */
final class RelayWatch implements AutoCloseable {
  /** A call that lasts is found at the second look. */
  private static final Duration LOOK = Duration.ofMillis(1);

  /** The looks without any call after which the watch sleeps. */
  private static final int QUIET_LOOKS = 20;

  private final Set<Relay> relays = ConcurrentHashMap.newKeySet();
  private final ReentrantLock lock = new ReentrantLock();

  /** Null before the first relay; written under the lock. */
  private volatile @Nullable Thread thread;

  private volatile boolean asleep;
  private volatile boolean closed;

  /** Watches a relay; false if no thread can be had for it. */
  boolean add(Relay relay) {
    relays.add(relay);
    return thread != null || starts();
  }

  private boolean starts() {
    lock.lock();
    try {
      if (thread == null) {
        Thread made = Thread.ofPlatform().daemon().name("relay watch").unstarted(this::watch);
        made.start();
        thread = made;
      }
      return true;
    } catch (OutOfMemoryError noThread) {
      return false;
    } finally {
      lock.unlock();
    }
  }

  void remove(Relay relay) {
    relays.remove(relay);
  }

  /** Makes the watch look; called when a call has begun to keep the right to receive. */
  void awake() {
    if (asleep) {
      asleep = false;
      LockSupport.unpark(thread);
    }
  }

  private void watch() {
    int quiet = 0;
    while (!closed) {
      LockSupport.parkNanos(this, LOOK.toNanos());
      quiet = look() ? 0 : quiet + 1;
      if (quiet == QUIET_LOOKS) {
        quiet = 0;
        asleep = true;
        while (asleep && !closed && !look()) {
          LockSupport.park(this);
        }
        asleep = false;
      }
    }
  }

  private boolean look() {
    boolean any = false;
    try {
      for (Relay relay : relays) {
        any |= relay.look();
      }
    } catch (OutOfMemoryError untilTheNextLook) {
      return true;
    }
    return any;
  }

  /** Ends the watch. */
  @Override
  public void close() {
    closed = true;
    LockSupport.unpark(thread);
  }
}
