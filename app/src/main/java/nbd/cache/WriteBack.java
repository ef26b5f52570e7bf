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
 * Gives dirty sectors to the storage: for a flush, to make room for a client that writes, and in
 * the background when there are many or they have waited for long. Neighbours go together in one
 * call, and several calls are under way at a time.
 *
 * <p>What is written is a copy, made when it is the call's turn: so a client may write to the block
 * meanwhile, which makes it dirty again.
 */
final class WriteBack {
  /** What is written by one call at most, but for larger blocks. */
  private static final int RUN = 1 << 20;

  /** How much is written to make room. */
  private static final int RELIEF = 8 << 20;

  private static final int PARALLEL = 32;

  /** A gap between dirty sectors that costs less than a call for each side, if it is valid. */
  private static final int GAP = 32 << 10;

  private static final long TICK_MILLIS = 1000;
  private static final long LONG_TICKS = 3;

  private final ExportCache cache;
  private final Executor executor;
  private final SharedRuns relief = new SharedRuns(this::makeRoom);
  private final Semaphore calls = new Semaphore(PARALLEL);
  private final AtomicBoolean isFailing = new AtomicBoolean();

  /** Whether the background thread is there; it ends when nothing is dirty. */
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
    this.executor = executor;
  }

  /** The background's clock. */
  long tick() {
    return tick.get();
  }

  /**
   * A block became dirty. Never waits: a lock is held.
   *
   * @param many whether there are many now
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
      boolean many = cache.frames.dirty() > cache.frames.dirtyBackgroundLimit();
      long dueTick = tick.get() - LONG_TICKS;
      long[] due =
          cache.dirtyBlocks(
              block ->
                  block.changes != null
                      && !Bits.isEmpty(block.changes.dirty)
                      && (many || block.changes.dirtyTick <= dueTick));
      List<IOException> failures = new ArrayList<>();
      all(due, Long.MAX_VALUE, failures);
      goOn =
          failures.isEmpty()
              && due.length > 0
              && cache.frames.dirty() > cache.frames.dirtyBackgroundLimit();
      if (cache.dirtyBytes() == 0) {
        inBackground.set(false);
        // Somebody may have found this thread still there.
        if (cache.dirtyBytes() == 0 || !inBackground.compareAndSet(false, true)) {
          return;
        }
      }
    }
  }

  /** Waits for the next tick; whether it was woken before. */
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
   * Makes room for what clients write; many share the work.
   *
   * @return false if there is nothing to be written back, or it fails: then waiting is no use
   */
  boolean relieve() {
    if (cache.dirtyBytes() == 0) {
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
    long[] all = cache.dirtyBlocks(block -> true);
    int most = Math.max(1, Math.min(RELIEF / cache.blockSize(), (all.length + 1) / 2));
    List<IOException> failures = new ArrayList<>();
    all(Arrays.copyOf(all, Math.min(all.length, most)), Long.MAX_VALUE, failures);
    ExportCache.throwFirst(failures);
  }

  /** Writes back what became dirty before an epoch, and waits for what is being written of that. */
  void allBefore(long epoch, Collection<IOException> failures) {
    long[] numbers =
        cache.dirtyBlocks(
            block -> {
              Block.Changes changes = block.changes;
              return changes != null
                  && ((!Bits.isEmpty(changes.dirty) && changes.dirtySince < epoch)
                      || (!Bits.isEmpty(changes.writing) && changes.writingSince < epoch));
            });
    all(numbers, epoch, failures);
  }

  /** Writes back these blocks, as far as they became dirty before the epoch. */
  private void all(long[] numbers, long epoch, Collection<IOException> failures) {
    int mostBlocks =
        Math.max(1, Math.min(RUN, cache.blockSizes().maximumPayload()) / cache.blockSize());
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
              // Nobody else sees it in this thread, and a flush must not count on this run.
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
        Logger.info("cache of export \"{}\": written back again", cache.exportName());
      }
    } else if (isFailing.compareAndSet(false, true)) {
      Logger.warn(
          "cache of export \"{}\": {} bytes cannot be written back: {}",
          cache.exportName(),
          cache.dirtyBytes(),
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

    /** What is to be written: sectors from the start of the first block. */
    private final List<Span> spans = new ArrayList<>();

    Run(long first, long last, long epoch, Collection<IOException> failures) {
      this.first = first;
      this.last = last;
      this.epoch = epoch;
      this.failures = failures;
      this.start = first << cache.blockShift();
    }

    /** Consecutive sectors. */
    private record Span(int from, int to) {}

    /** Answers whether there was anything to write. */
    boolean write() {
      long end = (last + 1) << cache.blockShift();
      Turn turn = cache.order.enter(start, end);
      int ended = 0;
      try {
        ByteBuffer copies = cache.buffers.take((int) (end - start));
        for (long number = first; number <= last; number++) {
          copy(number, copies);
        }
        for (Span span : spans) {
          store(span, copies);
          ended++;
        }
        cache.buffers.giveBack(copies);
        return !spans.isEmpty();
      } finally {
        // Not reached but by a mistake: nothing may stay for ever as if it were under way.
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
      Stripe stripe = cache.stripe(number);
      stripe.lock.lock();
      try {
        Block block = stripe.get(number);
        if (block == null || block.changes == null || block.frame == null) {
          return;
        }
        Block.Changes changes = block.changes;
        Frame frame = block.frame;
        if (changes.dirtySince >= epoch) {
          return;
        }
        int sectors = cache.sectorsOf(number);
        int bytes = cache.bytesOf(number);
        int base = (int) (number - first) * cache.sectorsPerBlock();
        int from = Bits.next(changes.dirty, 0, sectors);
        while (from < sectors) {
          int to = Bits.nextMissing(changes.dirty, from, sectors);
          int next = Bits.next(changes.dirty, to, sectors);
          while (next < sectors
              && (next - to) << cache.sectorShift() <= GAP
              && Bits.all(block.valid, to, next)) {
            to = Bits.nextMissing(changes.dirty, next, sectors);
            next = Bits.next(changes.dirty, to, sectors);
          }
          cache.beginWriting(stripe, block, from, to, true);
          int inBlock = from << cache.sectorShift();
          int length = Math.min(to << cache.sectorShift(), bytes) - inBlock;
          frame.read(
              inBlock, copies.duplicate().position(((base + from) << cache.sectorShift())), length);
          add(base + from, base + to);
          from = next;
        }
      } finally {
        stripe.lock.unlock();
      }
    }

    private void add(int from, int to) {
      if (!spans.isEmpty() && spans.getLast().to == from) {
        spans.set(spans.size() - 1, new Span(spans.getLast().from, to));
      } else {
        spans.add(new Span(from, to));
      }
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
      int from = span.from << cache.sectorShift();
      int to = (int) Math.min((long) span.to << cache.sectorShift(), cache.size() - start);
      int most = cache.blockSizes().maximumPayload();
      for (int at = from; at < to; at += most) {
        ByteBuffer piece = copies.duplicate().position(at).limit(Math.min(to, at + most));
        handle.write(piece, start + at, CommandFlags.NONE);
        cache.statistics.writeBacks.increment();
      }
    }

    private void end(Span span, boolean isStored) {
      cache.storageChanged(true);
      int perBlock = cache.sectorsPerBlock();
      for (int at = span.from; at < span.to; ) {
        long number = first + at / perBlock;
        int from = at % perBlock;
        int to = Math.min(perBlock, from + span.to - at);
        Stripe stripe = cache.stripe(number);
        stripe.lock.lock();
        try {
          Block block = stripe.get(number);
          if (block == null) {
            throw new IllegalStateException("a block was forgotten while it was written back");
          }
          if (isStored) {
            cache.wrote(stripe, block, from, to);
          } else {
            cache.failedWriting(stripe, block, from, to);
          }
        } finally {
          stripe.lock.unlock();
        }
        at += to - from;
      }
    }
  }
}
