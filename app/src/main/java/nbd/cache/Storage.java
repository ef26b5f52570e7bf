package nbd.cache;

import java.io.IOException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Handle;
import nbd.storage.LostException;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The one handle by which an export's cache reaches the storage: opened again after it has broken,
 * by one of the calls that need it, while the others wait. They share the attempt's failure, and so
 * does what else had been asked by then.
 *
 * <p>Invariant, guarded by the lock: {@link #generation} counts the handles that have broken, and
 * grows before the next one is opened; whoever changed something learns the generation that it was
 * done in. Between the two the cache is told that what no flush has covered may be lost, so no
 * flush of the next handle can be taken for one that covers it. No call is made under the lock.
 */
final class Storage {
  /** Opens a handle. */
  @FunctionalInterface
  interface Opening {
    Handle open(boolean readOnly) throws IOException;
  }

  /** A call of the handle. */
  @FunctionalInterface
  interface Call {
    void on(Handle handle) throws IOException;
  }

  private final String name;
  private final Opening opening;
  private final Runnable afterLoss;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition opened = lock.newCondition();
  private final SharedFailure openings = new SharedFailure();
  private volatile Handle first;
  private @Nullable Opened current;
  private boolean readOnly;
  private boolean isOpening;

  /** How many calls are under way. */
  private int calls;

  /** When the last one ended, or the first of them began, in nanoseconds. */
  private long lastSign;

  private boolean isClosed;

  /** Set under the lock; read and cleared only by the thread that reopens. */
  private boolean isLossUntold;

  private final AtomicLong generation = new AtomicLong();

  private static final class Opened {
    final Handle handle;
    final long generation;
    int users;
    boolean retired;

    Opened(Handle handle, long generation) {
      this.handle = handle;
      this.generation = generation;
    }
  }

  /**
   * Opens the first handle.
   *
   * @param name for messages
   * @param afterLoss told after a handle has broken, before the next is opened; holds no lock
   */
  Storage(String name, Opening opening, boolean readOnly, Runnable afterLoss) throws IOException {
    this.name = name;
    this.opening = opening;
    this.readOnly = readOnly;
    this.afterLoss = afterLoss;
    this.first = opening.open(readOnly);
    this.current = new Opened(first, 0);
  }

  /** A handle for what is constant; it may be closed. */
  Handle facts() {
    return first;
  }

  /** How many handles have broken. */
  long generation() {
    return generation.get();
  }

  boolean isReadOnly() {
    lock.lock();
    try {
      return readOnly;
    } finally {
      lock.unlock();
    }
  }

  /** Goes on with a handle that may be written to; until now nobody could write. */
  void makeWritable() throws IOException {
    Handle writable = opening.open(false);
    Opened idle;
    lock.lock();
    try {
      awaitOpened();
      idle = retireCurrent();
      readOnly = false;
      first = writable;
      current = new Opened(writable, generation.get());
    } finally {
      lock.unlock();
    }
    if (idle != null) {
      close(idle);
    }
  }

  /** Lets no more calls have the handle; it, if nobody uses it. The lock is held. */
  private @Nullable Opened retireCurrent() {
    Opened before = current;
    current = null;
    if (before == null) {
      return null;
    }
    before.retired = true;
    return before.users == 0 ? before : null;
  }

  /** For how long calls have been under way, and none has ended, in nanoseconds. */
  long silence() {
    lock.lock();
    try {
      return calls == 0 ? 0 : System.nanoTime() - lastSign;
    } finally {
      lock.unlock();
    }
  }

  /** How many attempts to open a handle have failed: what a request is given when it begins. */
  long failedOpenings() {
    return openings.count();
  }

  /**
   * Sees to it that there is a handle, and that of one that has broken the cache was told.
   *
   * @param since what {@link #failedOpenings} was when the request came
   */
  void ensureOpen(long since) throws IOException {
    leave(enter(since));
  }

  /**
   * Makes a call.
   *
   * @param since what {@link #failedOpenings} was when the request came for which it is made: if an
   *     attempt to open has failed since, that was the request's
   * @return the generation in which it was done; if that is not the present one, what it changed
   *     may be lost
   * @throws NbdException with EIO if the handle broke
   */
  long run(long since, Call call) throws IOException {
    Opened used = enter(since);
    try {
      call.on(used.handle);
      return used.generation;
    } catch (LostException lost) {
      retire(used, lost);
      throw new NbdException(
          NbdError.EIO, String.valueOf(lost.getMessage()), NbdException.told(lost), lost);
    } finally {
      leave(used);
    }
  }

  private Opened enter(long since) throws IOException {
    lock.lock();
    try {
      while (true) {
        if (isClosed) {
          throw new NbdException(NbdError.EIO, "the cache has let go of the storage");
        }
        if (current != null) {
          current.users++;
          countCall();
          return current;
        }
        openings.throwSince(since);
        if (!isOpening) {
          break;
        }
        opened.awaitUninterruptibly();
      }
      isOpening = true;
      countCall();
    } finally {
      lock.unlock();
    }
    Opened made = null;
    IOException failed = null;
    try {
      made = open();
      return made;
    } catch (IOException failure) {
      failed = failure;
      throw failure;
    } finally {
      lock.lock();
      try {
        isOpening = false;
        current = made;
        if (made == null) {
          calls--;
        }
        if (failed != null) {
          openings.add(failed);
        }
        if (isClosed) {
          // The call that opened it is the last to use it.
          retireCurrent();
        }
        opened.signalAll();
      } finally {
        lock.unlock();
      }
    }
  }

  /** Counts a call, which opening a handle for it belongs to; the lock is held. */
  private void countCall() {
    if (calls == 0) {
      lastSign = System.nanoTime();
    }
    calls++;
  }

  /** Waits until nobody opens a handle; the lock is held. */
  private void awaitOpened() {
    while (isOpening) {
      opened.awaitUninterruptibly();
    }
  }

  private Opened open() throws IOException {
    // Nobody else opens, and nobody calls: the one before has broken.
    if (isLossUntold) {
      afterLoss.run();
      isLossUntold = false;
    }
    Handle handle = opening.open(readOnly);
    Handle before = first;
    if (handle.size() != before.size()
        || !handle.blockSizes().equals(before.blockSizes())
        || !handle.capabilities().equals(before.capabilities())) {
      handle.close();
      throw new NbdException(
          NbdError.EIO, "the storage came back with another size, other flags or block sizes");
    }
    Logger.info("{}: the cache opened it again", name);
    first = handle;
    Opened made = new Opened(handle, generation.get());
    made.users = 1;
    return made;
  }

  private void retire(Opened broken, LostException why) {
    lock.lock();
    try {
      broken.retired = true;
      if (current == broken) {
        Logger.warn("{}: the cache lost its connection: {}", name, why.getMessage());
        current = null;
        generation.incrementAndGet();
        isLossUntold = true;
      }
    } finally {
      lock.unlock();
    }
  }

  private void leave(Opened used) {
    boolean last;
    lock.lock();
    try {
      used.users--;
      calls--;
      lastSign = System.nanoTime();
      last = used.retired && used.users == 0;
    } finally {
      lock.unlock();
    }
    if (last) {
      close(used);
    }
  }

  private void close(Opened unused) {
    try {
      unused.handle.close();
    } catch (IOException failure) {
      Logger.debug("{}: {}", name, failure.getMessage());
    }
  }

  /**
   * Closes the handle, or leaves that to the call that is the last to use it: one that reads ahead
   * may run still. Calls that come later fail, as do those that wait for a handle to be opened.
   */
  void close() throws IOException {
    Opened idle;
    lock.lock();
    try {
      isClosed = true;
      idle = retireCurrent();
      opened.signalAll();
    } finally {
      lock.unlock();
    }
    if (idle != null) {
      idle.handle.close();
    }
  }
}
