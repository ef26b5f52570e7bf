package nbd.file;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.locks.ReentrantLock;
import nbd.storage.Handle;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The files of a directory that are in use: each is open once, whatever its names are and however
 * many connections use it, so that what one of them is told of a loss, all are.
 *
 * <p><b>Invariant.</b> {@link #lock} guards the map and how many users each entry has; an entry is
 * in the map while it has users, or while a file is open for it. An entry's own lock is held while
 * its file is opened or closed, and then the other one only for the look-up; so whoever opens a
 * slow file holds up those who want the same one, and nobody else.
 *
 * <p>A file that has lost something stays open when nobody uses it any more: then nobody after can
 * be told that a flush was good, and no other file can take its place in the file system.
 */
final class SharedFiles {
  private final ReentrantLock lock = new ReentrantLock();
  private final Map<Object, Entry> entries = new HashMap<>();

  /** How a file is opened. */
  @FunctionalInterface
  interface Opener {
    FileBackend open() throws IOException;
  }

  private static final class Entry {
    final Object key;
    final ReentrantLock turn = new ReentrantLock();

    /** Under {@link #turn}. */
    @Nullable FileBackend file;

    /** Under the table's lock. */
    int users;

    Entry(Object key) {
      this.key = key;
    }
  }

  /**
   * Opens a handle on a file, which is opened for that if it is not open yet.
   *
   * @param key the file's identity, whatever its name is; while the caller holds on to the file
   */
  Handle open(Object key, boolean readOnly, Opener opener) throws IOException {
    Entry entry;
    lock.lock();
    try {
      entry = entries.computeIfAbsent(key, Entry::new);
      entry.users++;
    } finally {
      lock.unlock();
    }
    boolean done = false;
    entry.turn.lock();
    try {
      FileBackend file = entry.file;
      if (file == null) {
        file = opener.open();
        entry.file = file;
      }
      Handle handle = file.open(readOnly, () -> leave(entry));
      done = true;
      return handle;
    } finally {
      entry.turn.unlock();
      if (!done) {
        leave(entry);
      }
    }
  }

  private void leave(Entry entry) throws IOException {
    entry.turn.lock();
    try {
      if (countDown(entry) == 0) {
        close(entry);
      }
    } finally {
      forgetIfUnused(entry);
      entry.turn.unlock();
    }
  }

  private int countDown(Entry entry) {
    lock.lock();
    try {
      return --entry.users;
    } finally {
      lock.unlock();
    }
  }

  /** Leaves it open if something is lost. */
  private static void close(Entry entry) throws IOException {
    FileBackend file = entry.file;
    if (file != null) {
      file.flushBeforeClose();
      entry.file = null;
      file.release();
    }
  }

  private void forgetIfUnused(Entry entry) {
    lock.lock();
    try {
      if (entry.users == 0 && entry.file == null) {
        entries.remove(entry.key, entry);
      }
    } finally {
      lock.unlock();
    }
  }

  /** Closes what is open still; nobody opens or uses anything any more. */
  void close() throws IOException {
    List<Entry> left;
    lock.lock();
    try {
      left = new ArrayList<>(entries.values());
      entries.clear();
    } finally {
      lock.unlock();
    }
    @Nullable IOException first = null;
    for (Entry entry : left) {
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
    if (first != null) {
      throw first;
    }
  }
}
