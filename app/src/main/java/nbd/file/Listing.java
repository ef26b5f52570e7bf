package nbd.file;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Function;
import nbd.storage.ListedExport;
import org.tinylog.Logger;

/**
 * Finds out which entries of a directory are served, though the storage of one may not answer. The
 * entries are looked at one after the other; if a look takes longer than {@link #PATIENCE}, the
 * entry is left out and the next one is looked at by another thread. Until the first look has ended
 * nobody looks at that entry again: so a file that hangs keeps one thread waiting, however often
 * the directory is listed.
 */
final class Listing {
  /** How long to wait for what the system tells of a file. */
  static final Duration PATIENCE = Duration.ofSeconds(2);

  private final Function<Path, Optional<ListedExport>> look;
  private final Executor threads;
  private final Duration patience;
  private final Set<Path> silent = ConcurrentHashMap.newKeySet();

  /**
   * Looks at nothing yet.
   *
   * @param look tells whether and as what an entry is served; may wait for storage
   * @param threads by which it is done
   */
  Listing(Function<Path, Optional<ListedExport>> look, Executor threads, Duration patience) {
    this.look = look;
    this.threads = threads;
    this.patience = patience;
  }

  /**
   * The entries that are served, of those that answer.
   *
   * @throws IOException if no thread could be started
   */
  List<ListedExport> served(List<Path> entries) throws IOException {
    List<ListedExport> found = new ArrayList<>();
    int next = 0;
    while (next < entries.size()) {
      Walk walk = new Walk(entries, next);
      try {
        threads.execute(walk);
      } catch (OutOfMemoryError noThread) {
        throw new IOException("no thread could be started to list the directory", noThread);
      }
      next = walk.await();
      found.addAll(walk.found);
    }
    return found;
  }

  /**
   * One thread's way through the entries, which ends at the first that does not answer.
   *
   * <p>Invariant, under the lock: entries before {@code at} have been looked at, and what is served
   * of them is in {@code found}, which does not change once the walk is over.
   */
  private final class Walk implements Runnable {
    private final List<Path> entries;
    private final List<ListedExport> found = new ArrayList<>();
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition over = lock.newCondition();
    private int at;
    private boolean isOver;

    Walk(List<Path> entries, int first) {
      this.entries = entries;
      this.at = first;
    }

    @Override
    public void run() {
      boolean goesOn = true;
      while (goesOn) {
        Path entry = entries.get(at);
        goesOn = ended(entry, silent.contains(entry) ? Optional.empty() : answer(entry));
      }
    }

    private Optional<ListedExport> answer(Path entry) {
      try {
        return look.apply(entry);
      } catch (RuntimeException | Error unexpected) {
        Logger.debug(unexpected);
        return Optional.empty();
      }
    }

    /** Waits for the end, or until an entry does not answer; tells where the next walk begins. */
    int await() {
      boolean interrupted = false;
      lock.lock();
      try {
        int seen = at;
        long left = patience.toNanos();
        while (!isOver && left > 0) {
          try {
            left = over.awaitNanos(left);
          } catch (InterruptedException ignored) {
            interrupted = true;
          }
          if (at > seen) {
            seen = at;
            left = patience.toNanos();
          }
        }
        return isOver ? at : passOver(entries.get(at));
      } finally {
        lock.unlock();
        if (interrupted) {
          Thread.currentThread().interrupt();
        }
      }
    }

    /** Ends this walk, whose thread may return from its look at any time. */
    private int passOver(Path entry) {
      isOver = true;
      silent.add(entry);
      Logger.warn("{} is not listed: the system does not tell what it is", entry.getFileName());
      return at + 1;
    }

    /** Takes note of a look; whether there is another one to be done here. */
    private boolean ended(Path entry, Optional<ListedExport> served) {
      lock.lock();
      try {
        if (isOver) {
          silent.remove(entry);
          return false;
        }
        served.ifPresent(found::add);
        at++;
        if (at == entries.size()) {
          isOver = true;
          over.signalAll();
        }
        return !isOver;
      } finally {
        lock.unlock();
      }
    }
  }
}
