package nbd.cache;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;
import nbd.threads.RangeLocks.Turn;
import nbd.threads.SharedRuns;
import org.tinylog.Logger;

/**
 * The write-back of dirty sectors: for a flush, to make room for a client that writes, and in the
 * background when there are many or they have waited for long. Neighbours go together in one call,
 * and several calls are under way at a time.
 *
 * <p>The storage gets a copy, made when it is the call's turn: so a client may write to the block
 * meanwhile, which makes it dirty again.
 */
final class WriteBack {
  /** The bytes that are written by one call at most, but for larger blocks. */
  private static final int RUN = 1 << 20;

  /** The bytes that are written to make room. */
  private static final int RELIEF = 8 << 20;

  private static final int PARALLEL = 32;

  /** A gap between dirty sectors that costs less than a call for each side, if it is valid. */
  private static final int GAP = 32 << 10;

  private static final long TICK_MILLIS = 1000;
  private static final long LONG_TICKS = 3;

  private final ExportCache cache;
  private final Grid grid;
  private final Executor executor;
  private final SharedRuns relief = new SharedRuns(this::makeRoom);
  private final Semaphore calls = new Semaphore(PARALLEL);
  private final AtomicBoolean isFailing = new AtomicBoolean();

  /** Set while the background thread is there, which ends when nothing is dirty. */
  private final AtomicBoolean inBackground = new AtomicBoolean();

  private final Semaphore wake = new Semaphore(0);
  private volatile boolean stopped;
  private final AtomicLong tick = new AtomicLong();

  /**
   * Begins with nothing to do.
   *
   * @param executor runs what goes on in the background
   */
  WriteBack(ExportCache cache, Executor executor) {
    this.cache = cache;
    this.grid = cache.grid;
    this.executor = executor;
  }

  /** Returns the time of the background's clock. */
  long tick() {
    return tick.get();
  }

  /**
   * Takes note that a block became dirty. Never waits: a lock is held.
   *
   * @param many whether the limit of the background has just been passed
   */
  void someDirty(boolean many) {
    if (!inBackground.get() && inBackground.compareAndSet(false, true)) {
      executor.execute(this::background);
    }
    if (many) {
      wake.release();
    }
  }

  /** Ends the background. */
  void stop() {
    stopped = true;
    wake.release();
  }

  private void background() {
    boolean goOn = false;
    while (!stopped) {
      boolean woken = goOn || pause();
      wake.drainPermits();
      if (!woken) {
        tick.incrementAndGet();
      }
      boolean many = hasMany();
      long dueTick = tick.get() - LONG_TICKS;
      long[] due =
          cache.index.dirtyBlocks(
              changes -> !Bits.isEmpty(changes.dirty) && (many || changes.dirtyTick <= dueTick));
      List<IOException> failures = new ArrayList<>();
      all(due, Long.MAX_VALUE, failures);
      goOn = failures.isEmpty() && due.length > 0 && hasMany();
      if (!isAnyDirty()) {
        inBackground.set(false);
        // A client may have found this thread still there.
        if (!isAnyDirty() || !inBackground.compareAndSet(false, true)) {
          return;
        }
      }
    }
  }

  private boolean hasMany() {
    return cache.frames.dirty() > cache.frames.dirtyBackgroundLimit();
  }

  private boolean isAnyDirty() {
    return cache.states.dirtyBytes() > 0;
  }

  /** Waits for the next tick; says whether it was woken before. */
  private boolean pause() {
    try {
      // After a failure there is no point in trying at once.
      if (isFailing.get()) {
        Thread.sleep(TICK_MILLIS);
        return false;
      }
      return wake.tryAcquire(TICK_MILLIS, TimeUnit.MILLISECONDS);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /**
   * Makes room for writes of clients, which share the work.
   *
   * @return false if nothing is dirty, or writing back fails: then waiting is of no use
   */
  boolean relieve() {
    if (!isAnyDirty()) {
      return false;
    }
    try {
      relief.run();
      return true;
    } catch (IOException failure) {
      Logger.debug(failure);
      return false;
    }
  }

  private void makeRoom() throws IOException {
    long[] all = cache.index.dirtyBlocks(changes -> true);
    int most = Math.max(1, Math.min(RELIEF / grid.blockSize(), (all.length + 1) / 2));
    List<IOException> failures = new ArrayList<>();
    all(Arrays.copyOf(all, Math.min(all.length, most)), Long.MAX_VALUE, failures);
    ExportCache.throwFirst(failures);
  }

  /** Writes back what became dirty before an epoch; waits for what is being written back. */
  void allBefore(long epoch, Collection<IOException> failures) {
    long[] numbers =
        cache.index.dirtyBlocks(
            changes ->
                (!Bits.isEmpty(changes.dirty) && changes.dirtySince < epoch)
                    || (!Bits.isEmpty(changes.writing) && changes.writingSince < epoch));
    all(numbers, epoch, failures);
  }

  /** Writes back these blocks, as far as they became dirty before the epoch. */
  private void all(long[] numbers, long epoch, Collection<IOException> failures) {
    int mostBlocks = Math.max(1, Math.min(RUN, cache.mostPayload()) / grid.blockSize());
    Collection<IOException> met = new ConcurrentLinkedQueue<>();
    AtomicBoolean stored = new AtomicBoolean();
    Semaphore ended = new Semaphore(0);
    int started = 0;
    int from = 0;
    while (from < numbers.length) {
      int to = from + 1;
      while (to < numbers.length && to - from < mostBlocks && numbers[to] == numbers[to - 1] + 1) {
        to++;
      }
      long first = numbers[from];
      long last = numbers[to - 1];
      calls.acquireUninterruptibly();
      Runnable run =
          () -> {
            try {
              if (new Run(first, last, epoch, met).write()) {
                stored.set(true);
              }
            } catch (RuntimeException | Error mistake) {
              // A flush must not count on this run.
              met.add(new IOException("writing back failed by a mistake: " + mistake, mistake));
            } finally {
              calls.release();
              ended.release();
            }
          };
      started++;
      from = to;
      if (from == numbers.length) {
        run.run();
      } else {
        Thread.ofVirtual().name("write-back").start(run);
      }
    }
    ended.acquireUninterruptibly(started);
    failures.addAll(met);
    if (stored.get() || !met.isEmpty()) {
      note(met);
    }
  }

  /** Says when it begins to fail, and when that is over. */
  private void note(Collection<IOException> met) {
    if (met.isEmpty()) {
      if (isFailing.compareAndSet(true, false)) {
        Logger.info("cache of export \"{}\": written back again", cache.exportName);
      }
    } else if (isFailing.compareAndSet(false, true)) {
      Logger.warn(
          "cache of export \"{}\": {} bytes cannot be written back: {}",
          cache.exportName,
          cache.states.dirtyBytes(),
          met.iterator().next().getMessage());
    }
  }

  /** Neighbouring blocks that are written back together. */
  private final class Run {
    private final long first;
    private final long last;
    private final long epoch;
    private final Collection<IOException> failures;
    private final long start;

    /** The sectors to be written, counted from the start of the first block. */
    private final List<Span> spans = new ArrayList<>();

    Run(long first, long last, long epoch, Collection<IOException> failures) {
      this.first = first;
      this.last = last;
      this.epoch = epoch;
      this.failures = failures;
      this.start = grid.start(first);
    }

    /** Consecutive sectors. */
    private record Span(int from, int to) {}

    /** Writes back; says whether there was anything to write. */
    boolean write() {
      long end = grid.start(last + 1);
      Turn turn = cache.order.enter(start, end);
      int ended = 0;
      try {
        ByteBuffer copies = cache.takeBuffer((int) (end - start));
        for (long number = first; number <= last; number++) {
          copy(number, copies);
        }
        for (Span span : spans) {
          store(span, copies);
          ended++;
        }
        cache.giveBack(copies);
        return !spans.isEmpty();
      } finally {
        // Some are left only by a mistake; they must not stay as if they were under way.
        try {
          for (Span span : spans.subList(ended, spans.size())) {
            end(span, false);
          }
        } finally {
          cache.order.leave(turn);
        }
      }
    }

    private void copy(long number, ByteBuffer copies) {
      Stripe stripe = cache.index.stripe(number);
      stripe.lock.lock();
      try {
        Block block = stripe.get(number);
        if (block == null || block.changes == null || block.frame == null) {
          return;
        }
        long[] dirty = block.changes.dirty;
        Frame frame = block.frame;
        if (block.changes.dirtySince >= epoch) {
          return;
        }
        int sectors = grid.sectorsOf(number);
        int bytes = grid.bytesOf(number);
        int base = (int) (number - first) * grid.sectorsPerBlock();
        int from = Bits.next(dirty, 0, sectors);
        while (from < sectors) {
          int to = Bits.nextMissing(dirty, from, sectors);
          int next = Bits.next(dirty, to, sectors);
          while (next < sectors
              && (next - to) << grid.sectorShift() <= GAP
              && Bits.all(block.valid, to, next)) {
            to = Bits.nextMissing(dirty, next, sectors);
            next = Bits.next(dirty, to, sectors);
          }
          cache.states.beginWritingBack(block, from, to);
          int inBlock = from << grid.sectorShift();
          int length = Math.min(to << grid.sectorShift(), bytes) - inBlock;
          frame.read(
              inBlock, copies.duplicate().position((base + from) << grid.sectorShift()), length);
          add(base + from, base + to);
          from = next;
        }
      } finally {
        stripe.lock.unlock();
      }
    }

    private void add(int from, int to) {
      boolean goesOn = !spans.isEmpty() && spans.getLast().to == from;
      spans.add(goesOn ? new Span(spans.removeLast().from, to) : new Span(from, to));
    }

    private void store(Span span, ByteBuffer copies) {
      try {
        cache.storage.run(
            handle -> {
              write(handle, span, copies);
              end(span, true);
            });
      } catch (IOException failure) {
        failures.add(failure);
        end(span, false);
      }
    }

    private void write(Handle handle, Span span, ByteBuffer copies) throws IOException {
      int from = span.from << grid.sectorShift();
      int to = (int) Math.min((long) span.to << grid.sectorShift(), grid.size() - start);
      int most = cache.mostPayload();
      for (int at = from; at < to; at += most) {
        ByteBuffer piece = copies.duplicate().position(at).limit(Math.min(to, at + most));
        handle.write(piece, start + at, CommandFlags.NONE);
        cache.statistics.writeBacks.increment();
      }
    }

    private void end(Span span, boolean isStored) {
      cache.epochs.changed(true);
      int perBlock = grid.sectorsPerBlock();
      for (int at = span.from; at < span.to; ) {
        int from = at % perBlock;
        int to = Math.min(perBlock, from + span.to - at);
        end(first + at / perBlock, from, to, isStored);
        at += to - from;
      }
    }

    private void end(long number, int from, int to, boolean isStored) {
      Stripe stripe = cache.index.stripe(number);
      stripe.lock.lock();
      try {
        Block block = stripe.get(number);
        if (block == null) {
          throw new IllegalStateException("a block was forgotten while it was written back");
        }
        if (isStored) {
          cache.states.writtenBack(block, from, to);
        } else {
          cache.states.failedWriting(block, from, to);
        }
      } finally {
        stripe.lock.unlock();
      }
    }
  }
}
