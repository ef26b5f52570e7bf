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
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.Collectors;
import nbd.filter.FilterBackend;
import nbd.protocol.NbdException;
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
 * <p>A session beneath (<code>--reconnect</code>) hides a break from the cache for as long as it
 * was told to, and keeps what the cache cannot write again. It cannot take the cache's part: its
 * buffer is small, and flushed whenever it is full, which nobody has asked for without that option.
 * Nor can the cache take the session's: it would have to flush before it evicts a block.
 *
 * <p>When the last client of an export has gone, its cache is kept for the next one; of those that
 * nobody uses, all but the last few are written back and closed.
 */
public final class CacheFilter extends FilterBackend {
  private static final int MOST_IDLE = 16;

  /** The bytes of buffers that are kept for the next calls to storage. */
  private static final long MOST_KEPT = 4L << 20;

  /** At the end, storage that has answered nothing for so long is not waited for any more. */
  private static final Duration PATIENCE = Duration.ofSeconds(10);

  private final CacheSettings settings;
  private final boolean hasOwnNames;
  private final CacheStatistics statistics;
  private final Duration patience;
  private final Duration pause;
  private final Frames frames;
  private final BufferPool buffers = new BufferPool(MOST_KEPT);

  /** Guards the exports, in the order in which they were last used, and their counts of users. */
  private final ReentrantLock lock = new ReentrantLock();

  private final Map<String, Export> exports = new LinkedHashMap<>();

  /** An export name that somebody uses, or whose cache is kept. */
  private static final class Export {
    /** Guarded by the filter's lock, as what follows. */
    int users;

    boolean isEnding;

    /** Held while the cache is opened, exchanged or closed, by those who want this export only. */
    final ReentrantLock opening = new ReentrantLock();

    /** How the last attempt to open the storage failed; changed with that held. */
    volatile @Nullable IOException failure;

    /**
     * Changed with that held, and by nobody but {@link #endIdle} while there are no users; of those
     * that have none, it is read under the filter's lock.
     */
    volatile @Nullable ExportCache cache;
  }

  /**
   * Wraps a backend.
   *
   * @param hasOwnNames whether each export name stands for content of its own; if not, all names
   *     share one cache
   */
  public CacheFilter(
      Backend next, CacheSettings settings, boolean hasOwnNames, CacheStatistics statistics) {
    this(next, settings, hasOwnNames, statistics, PATIENCE, Storage.PAUSE);
  }

  /** For tests, with the patience at the end, and the pause after a failed attempt to open. */
  CacheFilter(
      Backend next,
      CacheSettings settings,
      boolean hasOwnNames,
      CacheStatistics statistics,
      Duration patience,
      Duration pause) {
    super(next);
    this.settings = settings;
    this.hasOwnNames = hasOwnNames;
    this.statistics = statistics;
    this.patience = patience;
    this.pause = pause;
    this.frames = new Frames(settings.blockSize(), settings.blocks());
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
    String key = hasOwnNames ? exportName : "";
    Export export = enter(key);
    boolean opened = false;
    try {
      Handle handle =
          new CacheHandle(cache(export, exportName), readOnly, () -> leave(key, export));
      opened = true;
      return handle;
    } finally {
      if (!opened) {
        leave(key, export);
      }
    }
  }

  private Export enter(String key) {
    lock.lock();
    try {
      Export export = exports.computeIfAbsent(key, name -> new Export());
      export.users++;
      return export;
    } finally {
      lock.unlock();
    }
  }

  private ExportCache cache(Export export, String exportName) throws IOException {
    IOException before = export.failure;
    export.opening.lock();
    try {
      IOException failure = export.failure;
      if (export.cache == null && failure != null && !failure.equals(before)) {
        // Of the attempt that this client has waited for.
        throw copyOf(failure);
      }
      return opened(export, exportName);
    } finally {
      export.opening.unlock();
    }
  }

  private static IOException copyOf(IOException shared) {
    return shared instanceof OptionException refused
        ? new OptionException(
            refused.type(),
            String.valueOf(refused.getMessage()),
            NbdException.told(refused),
            refused)
        : NbdException.copyOf(shared);
  }

  private ExportCache opened(Export export, String exportName) throws IOException {
    ExportCache cache = export.cache;
    if (cache != null && users(export) == 1 && hasChanged(cache, exportName)) {
      end(export, cache);
      cache = null;
    }
    if (cache == null) {
      try {
        cache =
            new ExportCache(
                next,
                exportName,
                settings,
                frames,
                buffers,
                statistics,
                pause,
                Thread.ofVirtual().name("write-back")::start);
      } catch (IOException failure) {
        export.failure = failure;
        throw failure;
      }
      export.cache = cache;
    }
    cache.storage.endPause();
    return cache;
  }

  /** Stores what a cache has, which stays if that fails, and lets go of it. */
  private static void end(Export export, ExportCache cache) throws IOException {
    cache.store();
    export.cache = null;
    cache.discard();
  }

  private int users(Export export) {
    lock.lock();
    try {
      return export.users;
    } finally {
      lock.unlock();
    }
  }

  /** Whether an export that nobody used for a while is not what it was: its size may be another. */
  private boolean hasChanged(ExportCache cache, String exportName) throws IOException {
    if (isForOneHandle()) {
      return false;
    }
    try (Handle now = next.open(exportName, false)) {
      return now.size() != cache.grid.size()
          || !now.blockSizes().equals(cache.facts().blockSizes());
    }
  }

  private void leave(String key, Export export) {
    lock.lock();
    try {
      export.users--;
      if (export.users == 0) {
        exports.remove(key, export);
        // One that could not be opened has nothing to keep; it must not displace those that have.
        if (export.cache != null) {
          // At the end: it is the one that was used last.
          exports.put(key, export);
          endIdle();
        }
      }
    } finally {
      lock.unlock();
    }
  }

  /** Has those ended that nobody has used for the longest time; the lock is held. */
  private void endIdle() {
    long idle = exports.values().stream().filter(export -> export.users == 0).count();
    long most = isForOneHandle() ? 0 : MOST_IDLE;
    for (Map.Entry<String, Export> entry : exports.entrySet()) {
      Export export = entry.getValue();
      if (idle <= most) {
        return;
      }
      if (export.users == 0 && !export.isEnding) {
        export.isEnding = true;
        Thread.ofVirtual().name("cache-close").start(() -> endIdle(entry.getKey(), export));
      }
      idle -= export.users == 0 ? 1 : 0;
    }
  }

  /** Ends one, unless somebody has come; one that cannot be written back stays. */
  private void endIdle(String key, Export export) {
    export.opening.lock();
    try {
      ExportCache cache = export.cache;
      if (users(export) == 0 && cache != null) {
        end(export, cache);
      }
    } catch (IOException failure) {
      Logger.error("cache: {}", failure.getMessage());
    } finally {
      forget(key, export);
      export.opening.unlock();
    }
  }

  private void forget(String key, Export export) {
    lock.lock();
    try {
      export.isEnding = false;
      if (export.users == 0 && export.cache == null) {
        exports.remove(key, export);
      }
    } finally {
      lock.unlock();
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
    lock.lock();
    try {
      all = List.copyOf(exports.values());
    } finally {
      lock.unlock();
    }
    Queue<IOException> met = new ConcurrentLinkedQueue<>();
    List<CompletableFuture<Void>> ends = new ArrayList<>();
    for (Export export : all) {
      ends.add(
          CompletableFuture.runAsync(
              () -> close(export, met), Thread.ofVirtual().name("cache-close")::start));
    }
    ends.forEach(CompletableFuture::join);
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

  private void close(Export export, Queue<IOException> failures) {
    if (!tryLock(export.opening)) {
      // Somebody has opened its storage, or writes to it, and gets no answer.
      ExportCache cache = export.cache;
      if (cache != null) {
        failures.add(new IOException(cache.unstored("its storage does not answer")));
      }
      return;
    }
    try {
      ExportCache cache = export.cache;
      if (cache == null) {
        return;
      }
      export.cache = null;
      try {
        cache.storeWhileAnswered(patience);
      } catch (IOException failure) {
        failures.add(failure);
      }
      cache.discard();
    } catch (IOException failure) {
      failures.add(failure);
    } finally {
      export.opening.unlock();
    }
  }

  private boolean tryLock(ReentrantLock wanted) {
    try {
      return wanted.tryLock(patience.toNanos(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /** How many caches there are, for tests. */
  int size() {
    lock.lock();
    try {
      return exports.size();
    } finally {
      lock.unlock();
    }
  }

  /** How much memory is taken, in bytes, for tests. */
  long bytes() {
    return frames.bytes();
  }
}
