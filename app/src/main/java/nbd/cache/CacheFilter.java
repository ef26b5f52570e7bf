package nbd.cache;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.Collectors;
import nbd.filter.FilterBackend;
import nbd.protocol.OptionException;
import nbd.storage.Backend;
import nbd.storage.BufferPool;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * One cache for all connections of an export, in front of any backend. Each {@link ExportCache}
 * reaches the backend through one handle of its own; the memory is that of {@link Frames}, for all
 * of them together.
 *
 * <p>A read copies what is cached under one short lock, that of the block's {@link Stripe}; else
 * {@link Reading} brings whole blocks, which take the place of others that are clean. A write only
 * marks the sectors of its block dirty. {@link WriteBack} brings them to the backend: for a flush,
 * in the background, or because too much is dirty. Where memory cannot be had, since all is dirty
 * and cannot be written back, reads and writes go past the cache: nobody waits for another export's
 * storage.
 *
 * <p>The cache takes any number of calls at a time, whatever the backend does: a backend of another
 * thread model has to be wrapped in a {@link nbd.filter.SerializeFilter} below.
 *
 * <p><b>Storage that breaks</b>, as a connection to another server does, is opened again ({@link
 * Storage}). What it was given, and no flush has covered, is written again where it is still
 * cached; of the rest (trims, zeroes, blocks that were evicted) a loss is reported to every client,
 * by its next flush. What is dirty waits in the cache for as long as the storage is away.
 *
 * <p><b>Writes are repeated in two places.</b> With {@code --reconnect}, a session below repeats
 * first, from a log of its own, and the cache notices a break only when the session is lost. The
 * session cannot replace the cache's repeating: it flushes the storage whenever its log is full,
 * and without that option no user has agreed to such flushes. Nor can the cache replace the
 * session's: it does not keep trims and zeroes, and would have to flush before it evicts a block.
 * So the data of writes that the storage has answered and no flush has covered may be held twice:
 * in the cache's frames and in the log, whose size ({@code --reconnect-buffer}) is the bound.
 *
 * <p>When the last client of an export has gone, its cache is kept for the next one; of those that
 * nobody uses, all but the last few are written back and closed.
 */
public final class CacheFilter extends FilterBackend {
  private static final int MOST_IDLE = 16;

  /** The bytes of buffers that are kept for the next calls to storage. */
  private static final long MOST_KEPT = 4L << 20;

  /** The time after which the end does not wait for silent storage any more. */
  private static final Duration PATIENCE = Duration.ofSeconds(10);

  private final CacheSettings settings;
  private final boolean hasOwnNames;
  private final CacheStatistics statistics;
  private final Duration patience;
  private final Duration pause;
  private final Executor background;
  private final Frames frames;
  private final BufferPool buffers = new BufferPool(MOST_KEPT);

  /**
   * The caches by export name, in the order in which they were last used; guarded by the monitor.
   */
  private final Map<String, Export> exports = new LinkedHashMap<>();

  /**
   * Wraps a backend.
   *
   * @param hasOwnNames whether each export name stands for content of its own; if not, all names
   *     share one cache
   */
  public CacheFilter(
      Backend next, CacheSettings settings, boolean hasOwnNames, CacheStatistics statistics) {
    this(
        next,
        settings,
        hasOwnNames,
        statistics,
        PATIENCE,
        Storage.PAUSE,
        Thread.ofVirtual().name("write-back")::start);
  }

  /**
   * For tests, with the patience at the end, the pause after a failed attempt to open, and the
   * executor of what is written back without anybody asking for it.
   */
  CacheFilter(
      Backend next,
      CacheSettings settings,
      boolean hasOwnNames,
      CacheStatistics statistics,
      Duration patience,
      Duration pause,
      Executor background) {
    super(next);
    this.settings = settings;
    this.hasOwnNames = hasOwnNames;
    this.statistics = statistics;
    this.patience = patience;
    this.pause = pause;
    this.background = background;
    this.frames = new Frames(settings.blockSize(), settings.blocks());
  }

  /** A cache that writes at the end only may hold writes that no flush has stored. */
  @Override
  public boolean isVolatile() {
    return settings.mode() == CacheMode.UNSAFE || super.isVolatile();
  }

  /**
   * All calls may come at the same time. Only where the storage has one handle at a time, and more
   * than one export, the clients still have to come one after the other.
   */
  @Override
  public ThreadModel threadModel() {
    return isForOneHandle() && hasOwnNames
        ? ThreadModel.SERIALIZE_CONNECTIONS
        : ThreadModel.PARALLEL;
  }

  private boolean isForOneHandle() {
    return next.threadModel() == ThreadModel.SERIALIZE_CONNECTIONS;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    Export export = enter(hasOwnNames ? exportName : "");
    boolean opened = false;
    try {
      Handle handle = new CacheHandle(export.open(exportName), readOnly, () -> leave(export));
      opened = true;
      return handle;
    } finally {
      if (!opened) {
        leave(export);
      }
    }
  }

  /** An export name that clients use, or whose cache is kept. */
  private final class Export {
    final String key;

    /** Guarded by the filter's monitor, as is {@code isEnding}. */
    int users;

    boolean isEnding;

    /** Held while the cache is opened, exchanged or closed, by those who want this export only. */
    private final ReentrantLock opening = new ReentrantLock();

    /** The failure of the last attempt to open the storage; changed with that held. */
    private volatile @Nullable IOException failure;

    /**
     * Changed with that held, and by nobody but {@link #endIdle} while there are no users; of those
     * that have none, it is read under the filter's monitor.
     */
    volatile @Nullable ExportCache cache;

    Export(String key) {
      this.key = key;
    }

    ExportCache open(String exportName) throws IOException {
      IOException before = failure;
      opening.lock();
      try {
        IOException met = failure;
        if (cache == null && met != null && !met.equals(before)) {
          // The attempt that this client has waited for has failed.
          throw OptionException.copyOf(met);
        }
        ExportCache opened = cache;
        if (opened != null && users(this) == 1 && hasChanged(opened, exportName)) {
          end(opened);
          opened = null;
        }
        if (opened == null) {
          opened = make(exportName);
          cache = opened;
        }
        opened.storage.endPause();
        return opened;
      } finally {
        opening.unlock();
      }
    }

    private ExportCache make(String exportName) throws IOException {
      try {
        return new ExportCache(
            next, exportName, settings, frames, buffers, statistics, pause, background);
      } catch (IOException met) {
        failure = met;
        throw met;
      }
    }

    /** Says whether an export that nobody used for a while has changed: it may have grown. */
    private boolean hasChanged(ExportCache known, String exportName) throws IOException {
      if (isForOneHandle()) {
        return false;
      }
      try (Handle now = next.open(exportName, false)) {
        return now.size() != known.grid.size()
            || !now.blockSizes().equals(known.facts().blockSizes());
      }
    }

    /** Stores what the cache has, which stays if that fails, and lets go of it. */
    private void end(ExportCache ended) throws IOException {
      ended.store();
      cache = null;
      ended.discard();
    }

    /** Ends, unless a client has come; what cannot be written back stays. */
    void endIdle() {
      opening.lock();
      try {
        ExportCache idle = cache;
        if (users(this) == 0 && idle != null) {
          end(idle);
        }
      } catch (IOException met) {
        Logger.error("cache: {}", met.getMessage());
      } finally {
        forget(this);
        opening.unlock();
      }
    }

    /** Stores what the cache has, as long as its storage answers, and lets go of it. */
    void close(Queue<IOException> failures) {
      if (!tryLock()) {
        // A client has its storage opened, or written to, which does not answer.
        ExportCache silent = cache;
        if (silent != null) {
          failures.add(new IOException(silent.unstored("its storage does not answer")));
        }
        return;
      }
      try {
        ExportCache closed = cache;
        if (closed == null) {
          return;
        }
        cache = null;
        try {
          closed.storeWhileAnswered(patience);
        } catch (IOException met) {
          failures.add(met);
        }
        closed.discard();
      } catch (IOException met) {
        failures.add(met);
      } finally {
        opening.unlock();
      }
    }

    private boolean tryLock() {
      try {
        return opening.tryLock(patience.toNanos(), TimeUnit.NANOSECONDS);
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        return false;
      }
    }
  }

  private synchronized Export enter(String key) {
    Export export = exports.computeIfAbsent(key, Export::new);
    export.users++;
    return export;
  }

  private synchronized int users(Export export) {
    return export.users;
  }

  private synchronized void leave(Export export) {
    export.users--;
    if (export.users == 0) {
      exports.remove(export.key, export);
      // One that could not be opened has nothing to keep; it must not displace those that have.
      if (export.cache != null) {
        // At the end: it is the one that was used last.
        exports.put(export.key, export);
        endIdle();
      }
    }
  }

  /** Ends those that no client has used for the longest time; the monitor is held. */
  private void endIdle() {
    List<Export> idle = exports.values().stream().filter(export -> export.users == 0).toList();
    int kept = isForOneHandle() ? 0 : MOST_IDLE;
    for (Export export : idle.subList(0, Math.max(0, idle.size() - kept))) {
      if (!export.isEnding) {
        export.isEnding = true;
        Thread.ofVirtual().name("cache-close").start(export::endIdle);
      }
    }
  }

  private synchronized void forget(Export export) {
    export.isEnding = false;
    if (export.users == 0 && export.cache == null) {
      exports.remove(export.key, export);
    }
  }

  /**
   * Writes everything back and closes the backend: all exports at the same time, and each as long
   * as its storage answers.
   *
   * @throws IOException if something could not be stored; the message says how much of which export
   */
  @Override
  public void close() throws IOException {
    List<Export> all;
    synchronized (this) {
      all = List.copyOf(exports.values());
    }
    Queue<IOException> met = new ConcurrentLinkedQueue<>();
    Executor threads = Thread.ofVirtual().name("cache-close")::start;
    all.stream()
        .map(export -> CompletableFuture.runAsync(() -> export.close(met), threads))
        .toList()
        .forEach(CompletableFuture::join);
    try {
      next.close();
    } catch (IOException failure) {
      met.add(failure);
    }
    List<IOException> failures = new ArrayList<>(met);
    if (failures.size() > 1) {
      String messages =
          failures.stream().map(IOException::getMessage).collect(Collectors.joining("; "));
      failures.addFirst(new IOException(messages));
    }
    ExportCache.throwFirst(failures);
  }

  /** Counts the caches, for tests. */
  synchronized int size() {
    return exports.size();
  }

  /** Returns the bytes of memory that are taken, for tests. */
  long bytes() {
    return frames.bytes();
  }
}
