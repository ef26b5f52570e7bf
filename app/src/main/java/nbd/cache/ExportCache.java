package nbd.cache;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.LongAdder;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.BufferPool;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.Losses;
import nbd.storage.LostWritesException;
import nbd.threads.SharedRuns;

/**
 * The cache of one export, which all its connections share: its parts, its flushes, and its end.
 * {@link BlockIndex} has its blocks; {@link Reading}, {@link Writing} and {@link WriteBack} move
 * data between them and the {@link Storage}.
 */
final class ExportCache {
  private static final int SMALLEST_SECTOR = 512;
  private static final AtomicInteger IDS = new AtomicInteger();

  /** Tells its blocks from those of other exports. */
  final int id = IDS.getAndIncrement();

  final String exportName;
  final CacheMode mode;
  final Grid grid;
  final Frames frames;
  final CacheStatistics statistics;
  final Storage storage;
  final Epochs epochs = new Epochs();
  final SectorStates states;
  final BlockIndex index;
  final WriteOrder order;
  final Losses losses = new Losses();
  final Reading reading;
  final Writing writing;
  final WriteBack writeBack;
  private final BufferPool buffers;
  private final SharedRuns storageFlushes = new SharedRuns(this::flushStorage);
  private final SharedRuns flushes = new SharedRuns(this::writeBackAndFlush);

  /**
   * Opens the storage.
   *
   * @param pause for how long calls fail after an attempt to open the storage has
   * @param background runs what is written back without anybody asking for it
   * @throws NbdException with EINVAL if its blocks are larger than those of the cache
   */
  ExportCache(
      Backend backend,
      String exportName,
      CacheSettings settings,
      Frames frames,
      BufferPool buffers,
      CacheStatistics statistics,
      Duration pause,
      Executor background)
      throws IOException {
    this.exportName = exportName;
    this.mode = settings.mode();
    this.frames = frames;
    this.buffers = buffers;
    this.statistics = statistics;
    storage =
        new Storage(
            backend.name(), () -> backend.open(exportName, false), this::storageBroke, pause);
    int sector = Math.max(SMALLEST_SECTOR, facts().blockSizes().minimum());
    if (sector > settings.blockSize()) {
      storage.close();
      throw new NbdException(
          NbdError.EINVAL,
          "the storage has blocks of %d bytes, more than the cache's of %d; raise --cache-block-size"
              .formatted(sector, settings.blockSize()));
    }
    grid =
        new Grid(
            facts().size(),
            Integer.numberOfTrailingZeros(settings.blockSize()),
            Integer.numberOfTrailingZeros(sector));
    states = new SectorStates(this);
    index = new BlockIndex(this, settings.blocks());
    order = new WriteOrder(grid);
    reading = new Reading(this);
    writing = new Writing(this);
    writeBack = new WriteBack(this, background);
  }

  ExportFacts facts() {
    return storage.facts();
  }

  Capabilities below() {
    return facts().capabilities();
  }

  /** Returns the bytes that one call to the storage may have. */
  int mostPayload() {
    return facts().blockSizes().maximumPayload();
  }

  /**
   * Lends a buffer for a call to the storage: of the heap where the JVM has no more direct memory,
   * which the cache itself may have taken; what is dirty has to be written back all the same.
   */
  ByteBuffer takeBuffer(int bytes) {
    try {
      return buffers.take(bytes);
    } catch (NbdException none) {
      return ByteBuffer.allocate(bytes);
    }
  }

  /** Takes a buffer back that nobody uses any more. */
  void giveBack(ByteBuffer buffer) {
    if (buffer.isDirect()) {
      buffers.giveBack(buffer);
    }
  }

  /**
   * Makes everything durable that any client wrote before this call.
   *
   * @throws IOException if that is not certain
   */
  void flush() throws IOException {
    flushes.run();
  }

  private void writeBackAndFlush() throws IOException {
    for (int tries = 0; ; tries++) {
      // If the handle has broken: what it lost is dirty again after this.
      Handle flushed = storage.ensureOpen();
      List<IOException> failures = new ArrayList<>();
      writeBack.allBefore(epochs.begin(), failures);
      try {
        storageFlushes.run();
      } catch (IOException failure) {
        failures.add(failure);
      }
      boolean broke = !storage.isCurrent(flushed);
      if (!broke || tries >= 2) {
        if (broke && failures.isEmpty()) {
          failures.add(new NbdException(NbdError.EIO, "the storage broke during the flush"));
        }
        throwFirst(failures);
        return;
      }
    }
  }

  static void throwFirst(List<IOException> failures) throws IOException {
    if (!failures.isEmpty()) {
      IOException first = failures.getFirst();
      failures.subList(1, failures.size()).forEach(first::addSuppressed);
      throw first;
    }
  }

  /**
   * Makes durable what the storage was given before this call.
   *
   * @param given on which handle
   * @throws NbdException with EIO also if the storage broke since: the next handle's flush does not
   *     cover it
   */
  void flushGiven(Handle given) throws IOException {
    storageFlushes.run();
    if (!storage.isCurrent(given)) {
      throw new NbdException(NbdError.EIO, "the storage broke before it was durable");
    }
  }

  private void flushStorage() throws IOException {
    if (!epochs.isAllCovered()) {
      flushThrough();
    }
  }

  /** Flushes the storage, for this caller alone. */
  void flushThrough() throws IOException {
    long before = epochs.begin();
    if (below().has(Capability.FLUSH)) {
      try {
        storage.run(Handle::flush);
      } catch (LostWritesException lost) {
        // It covers what is there.
        lose(lost);
      }
    }
    epochs.flushed(before);
  }

  /**
   * Deals with the break of the storage's handle. What it was given and no flush has covered may
   * not be there: it is dirty again where it is still cached, and reported where it is not.
   */
  private void storageBroke() {
    boolean through = mode == CacheMode.WRITETHROUGH;
    int sectors = grid.sectorsPerBlock();
    index.forEach(
        block -> {
          block.outdate(0, sectors);
          if (through) {
            states.invalidate(block, 0, sectors);
          } else {
            states.distrust(block, 0, sectors);
          }
        });
    // Only now: what was evicted meanwhile cannot be written again.
    if (!(through ? epochs.isAllCovered() : epochs.isAllRepeatable())) {
      epochs.reported();
      lose(new IOException("its storage broke before it had flushed them"));
    }
  }

  private void lose(IOException failure) {
    losses.add(exportName, failure);
    losses.log();
  }

  /**
   * Stores everything. No client has a handle, and none gets one.
   *
   * @throws IOException if something could not be stored; the message says how much
   */
  void store() throws IOException {
    if (mode != CacheMode.WRITETHROUGH) {
      storage.endPause();
      try {
        flush();
      } catch (IOException failure) {
        throw new IOException(unstored(String.valueOf(failure.getMessage())), failure);
      }
    }
  }

  /**
   * Stores everything, as long as the storage answers.
   *
   * @param patience how long it may leave all calls unanswered
   * @throws IOException as {@link #store}
   */
  void storeWhileAnswered(Duration patience) throws IOException {
    FutureTask<Boolean> storing =
        new FutureTask<>(
            () -> {
              store();
              return true;
            });
    Thread.ofVirtual().name("cache-store").start(storing);
    long most = patience.toNanos();
    // One call that hangs does not say that others do, so it tries in any case.
    long left = Math.max(most / 4, most - storage.silence());
    while (left > 0) {
      try {
        storing.get(left, TimeUnit.NANOSECONDS);
        return;
      } catch (ExecutionException failure) {
        throw failure.getCause() instanceof IOException known
            ? known
            : new IOException(failure.getCause());
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        throw new IOException(unstored("it was interrupted"), interrupted);
      } catch (TimeoutException late) {
        left = most - storage.silence();
      }
    }
    throw new IOException(
        unstored("its storage has not answered for %d s".formatted(patience.toSeconds())));
  }

  /** Says what is lost if no more is stored. */
  String unstored(String why) {
    LongAdder sectors = new LongAdder();
    index.forEach(block -> sectors.add(states.unflushed(block)));
    long bytes = sectors.sum() << grid.sectorShift();
    return bytes > 0
        ? "%s%d bytes that were written to export \"%s\", and not flushed, cannot be stored: %s"
            .formatted(epochs.isAllRepeatable() ? "" : "at least ", bytes, exportName, why)
        : "what was written to export \"%s\" since the last flush may be lost: %s"
            .formatted(exportName, why);
  }

  /**
   * Lets go of everything, stored or not.
   *
   * @throws IOException also if something is lost that no client was told of
   */
  void discard() throws IOException {
    writeBack.stop();
    List<Frame> unused = new ArrayList<>();
    index.forEach(
        block -> {
          Frame frame = block.frame;
          if (frame != null) {
            frames.leave(block);
            unused.add(frame);
            block.frame = null;
          }
          states.discarded(block);
          block.stripe.remove(block);
        });
    unused.forEach(frames::giveBack);
    storage.close();
    Optional<String> unreported = losses.unreported();
    if (unreported.isPresent()) {
      throw new IOException(unreported.get());
    }
  }
}
