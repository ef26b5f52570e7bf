package nbd.cache;

import java.io.IOException;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.LostException;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The one handle by which an export's cache reaches its storage. When it has broken, a call that
 * comes later opens another one, and the calls that come meanwhile wait for it. When that fails,
 * all calls fail for a pause: requests that have waited for each other share one attempt.
 *
 * <p><b>A break</b> is dealt with while no call is under way: the cache is told that what no flush
 * has covered may be lost, and only then another handle is opened. So a call notes its changes
 * within {@link Call#on}: the cache finds them noted when the storage loses them. Where two calls
 * have to be of one handle, {@link #isCurrent} says whether that returned by {@link #run} still is.
 *
 * <p>Invariant, guarded by the lock: of {@code current} and {@code broken} one is null; while
 * {@code isOpening}, only the thread that opens uses {@code broken}. No call is made under it.
 */
final class Storage {
  /** The time after a failed attempt to open the storage in which none is made. */
  static final Duration PAUSE = Duration.ofSeconds(1);

  /** Opens a handle. */
  @FunctionalInterface
  interface Opening {
    Handle open() throws IOException;
  }

  /** A call of the handle, and the notes that the cache makes of it. */
  @FunctionalInterface
  interface Call {
    void on(Handle handle) throws IOException;
  }

  private final String name;
  private final Opening opening;
  private final Runnable afterBreak;
  private final Duration pause;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();

  /** The facts of the newest handle. */
  private volatile ExportFacts facts;

  private @Nullable Handle current;

  /** A broken handle of which the cache has not been told. */
  private @Nullable Handle broken;

  private boolean isOpening;
  private boolean isClosed;

  /** The number of calls that are under way. */
  private int calls;

  /** The time at which the last one ended, or the first of them began, in nanoseconds. */
  private long lastSign;

  /** The failure of the last attempt to open the storage; null if it did not fail. */
  private @Nullable IOException failure;

  private long failedAt;

  /**
   * Opens the first handle.
   *
   * @param name for messages
   * @param afterBreak runs after a handle has broken, before the next is opened; no lock is held
   * @param pause the time for which calls fail after an attempt to open a handle has
   */
  Storage(String name, Opening opening, Runnable afterBreak, Duration pause) throws IOException {
    this.name = name;
    this.opening = opening;
    this.afterBreak = afterBreak;
    this.pause = pause;
    this.current = opening.open();
    this.facts = current.facts();
  }

  ExportFacts facts() {
    return facts;
  }

  /** Says whether a handle has neither broken nor been replaced, as far as is known. */
  boolean isCurrent(Handle handle) {
    lock.lock();
    try {
      return handle.equals(current);
    } finally {
      lock.unlock();
    }
  }

  /** Returns for how long calls have been under way and none has ended, in nanoseconds. */
  long silence() {
    lock.lock();
    try {
      return calls == 0 ? 0 : System.nanoTime() - lastSign;
    } finally {
      lock.unlock();
    }
  }

  /** Lets the next call try to open the storage, also if that has just failed. */
  void endPause() {
    lock.lock();
    try {
      failure = null;
    } finally {
      lock.unlock();
    }
  }

  /** Opens the storage if need be, which tells the cache of a break. */
  Handle ensureOpen() throws IOException {
    return run(handle -> {});
  }

  /**
   * Makes a call.
   *
   * @return the handle on which it was made
   * @throws NbdException with EIO if the handle broke
   */
  Handle run(Call call) throws IOException {
    Handle used = enter();
    try {
      call.on(used);
      return used;
    } catch (LostException lost) {
      noteBreak(used, lost);
      throw new NbdException(
          NbdError.EIO,
          String.valueOf(lost.getMessage()),
          NbdException.messageForClient(lost),
          lost);
    } finally {
      leave();
    }
  }

  private Handle enter() throws IOException {
    lock.lock();
    try {
      while (isOpening && !isClosed) {
        changed.awaitUninterruptibly();
      }
      if (isClosed) {
        throw new NbdException(NbdError.EIO, "the cache has let go of the storage");
      }
      if (failure != null && System.nanoTime() - failedAt < pause.toNanos()) {
        throw NbdException.copyOf(failure);
      }
      if (calls == 0) {
        lastSign = System.nanoTime();
      }
      calls++;
      if (current != null) {
        return current;
      }
      isOpening = true;
      // The calls on the broken handle have failed, or are about to.
      while (calls > 1) {
        changed.awaitUninterruptibly();
      }
    } finally {
      lock.unlock();
    }
    return openAgain();
  }

  private Handle openAgain() throws IOException {
    Handle made = null;
    IOException failed = null;
    try {
      if (broken != null) {
        afterBreak.run();
        close(broken);
        broken = null;
      }
      made = openAlike();
      return made;
    } catch (IOException met) {
      failed = met;
      throw met;
    } finally {
      lock.lock();
      try {
        isOpening = false;
        current = made;
        calls -= made == null ? 1 : 0;
        failure = failed;
        failedAt = System.nanoTime();
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    }
  }

  private Handle openAlike() throws IOException {
    Handle made = opening.open();
    Optional<String> difference = made.facts().differenceTo(facts);
    if (difference.isPresent()) {
      made.close();
      throw new NbdException(NbdError.EIO, difference.get());
    }
    Logger.info("{}: the cache opened it again", name);
    facts = made.facts();
    return made;
  }

  private void noteBreak(Handle used, LostException why) {
    lock.lock();
    try {
      if (used.equals(current)) {
        Logger.warn("{}: the cache lost its connection: {}", name, why.getMessage());
        current = null;
        broken = used;
      }
    } finally {
      lock.unlock();
    }
  }

  private void leave() {
    Handle unused;
    lock.lock();
    try {
      calls--;
      lastSign = System.nanoTime();
      if (isOpening) {
        changed.signalAll();
      }
      unused = takeUnused();
    } finally {
      lock.unlock();
    }
    if (unused != null) {
      close(unused);
    }
  }

  /** Gives the handle, if it is to be closed now. The lock is held. */
  private @Nullable Handle takeUnused() {
    if (!isClosed || calls > 0) {
      return null;
    }
    Handle unused = current == null ? broken : current;
    current = null;
    broken = null;
    return unused;
  }

  private void close(Handle unused) {
    try {
      unused.close();
    } catch (IOException met) {
      Logger.debug("{}: {}", name, met.getMessage());
    }
  }

  /**
   * Closes the handle, or leaves that to the last call that uses it: one that reads ahead may run
   * still. Calls that come later fail, as do those that wait for a handle to be opened.
   */
  void close() throws IOException {
    Handle unused;
    lock.lock();
    try {
      isClosed = true;
      unused = takeUnused();
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    if (unused != null) {
      unused.close();
    }
  }
}
