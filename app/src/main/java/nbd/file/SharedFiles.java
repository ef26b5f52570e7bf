package nbd.file;

import java.io.IOException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.ReentrantLock;
import nbd.storage.Handle;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The files of a directory that are in use. Each is open once, whatever its names are and however
 * many connections use it, so that all of them learn of a loss.
 *
 * <p>Invariant: an entry is in the table while it has users, which the table's own updates count
 * up, or while its file is open. Its file is opened and closed with its lock held: a slow file
 * holds up those who want the same one, and nobody else.
 *
 * <p>A file that has lost something stays open when nobody uses it any more, so that no later
 * client's flush succeeds, and no other file takes its place in the file system.
 */
final class SharedFiles {
  private final ConcurrentHashMap<Object, Entry> entries = new ConcurrentHashMap<>();

  /** The way a file is opened. */
  @FunctionalInterface
  interface Opener {
    FileBackend open() throws IOException;
  }

  private static final class Entry {
    final AtomicInteger users = new AtomicInteger();
    final ReentrantLock lock = new ReentrantLock();

    /** Under the lock. */
    @Nullable FileBackend file;
  }

  /**
   * Opens a handle on a file, and the file if it is not open yet.
   *
   * @param key the file's identity, whatever its name is; while the caller holds on to the file
   */
  Handle open(Object key, boolean readOnly, Opener opener) throws IOException {
    Entry entry =
        entries.compute(
            key,
            (same, known) -> {
              Entry wanted = known == null ? new Entry() : known;
              wanted.users.incrementAndGet();
              return wanted;
            });
    boolean done = false;
    entry.lock.lock();
    try {
      FileBackend file = entry.file == null ? opener.open() : entry.file;
      entry.file = file;
      Handle handle = file.open(readOnly, () -> leave(key, entry));
      done = true;
      return handle;
    } finally {
      entry.lock.unlock();
      if (!done) {
        leave(key, entry);
      }
    }
  }

  /** Ends a use; closes the file after the last one, unless its last flush fails. */
  private void leave(Object key, Entry entry) throws IOException {
    entry.lock.lock();
    try {
      FileBackend file = entry.file;
      if (entry.users.decrementAndGet() == 0 && file != null) {
        file.flushBeforeClose();
        entry.file = null;
        file.release();
      }
    } finally {
      entries.computeIfPresent(
          key, (same, known) -> known.users.get() == 0 && known.file == null ? null : known);
      entry.lock.unlock();
    }
  }

  /** Closes the files that are still open; called when nobody uses any of them. */
  void close() throws IOException {
    @Nullable IOException first = null;
    for (Entry entry : entries.values()) {
      FileBackend file = entry.file;
      try {
        if (file != null) {
          file.close();
        }
      } catch (IOException failure) {
        Logger.debug(failure);
        first = first == null ? failure : first;
      }
    }
    entries.clear();
    if (first != null) {
      throw first;
    }
  }
}
