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
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.Consumer;
import java.util.stream.LongStream;
import nbd.protocol.BlockSizes;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.Losses;
import nbd.storage.LostWritesException;
import nbd.threads.SharedRuns;
import org.jspecify.annotations.Nullable;

/**
 * The cache of one export, which all its connections share: the index of its blocks, and what each
 * change does to their state. Who moves data between it and the storage: {@link Reading}, {@link
 * Writing} and {@link WriteBack}.
 *
 * <p>Time is counted in epochs: one begins with each flush. A block remembers the epoch in which it
 * became dirty, so that a flush finds what was written before it and leaves the rest; and the one
 * in which it was given to the storage, so that a flush of the storage covers what was there when
 * it started: everything below {@link #coveredUpTo}.
 */
final class ExportCache {
  private static final int MOST_STRIPES = 64;

  /** For more blocks than this it is cheaper to go through all that are known. */
  private static final int MOST_LOOKED_UP = 256;

  private static final AtomicLong IDS = new AtomicLong();

  private final int id = (int) IDS.getAndIncrement();
  private final String exportName;
  private final CacheSettings settings;
  private final Stripe[] stripes;
  private final int blockShift;
  private final int sectorShift;
  private final long size;
  private final BlockSizes blockSizes;
  private final AtomicLong epoch = new AtomicLong(1);

  /** When the storage last changed, as an epoch. */
  private final AtomicLong lastChanged = new AtomicLong(-1);

  /** The epoch of the last write that could not be resent from memory. */
  private final AtomicLong lastUncachedWrite = new AtomicLong(-1);

  private final AtomicLong coveredUpTo = new AtomicLong();
  private final AtomicLong dirtySectors = new AtomicLong();
  private final SharedRuns storageFlushes = new SharedRuns(this::flushStorage);
  private final SharedRuns flushes = new SharedRuns(this::writeBackAndFlush);

  final Frames frames;
  final Buffers buffers;
  final CacheStatistics statistics;
  final Storage storage;
  final WriteOrder order;
  final Losses losses = new Losses();
  final Reading reading;
  final Writing writing;
  final WriteBack writeBack;

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
      Buffers buffers,
      CacheStatistics statistics,
      Duration pause,
      Executor background)
      throws IOException {
    this.exportName = exportName;
    this.settings = settings;
    this.frames = frames;
    this.buffers = buffers;
    this.statistics = statistics;
    stripes = new Stripe[Math.min(MOST_STRIPES, Integer.highestOneBit(settings.blocks()))];
    for (int i = 0; i < stripes.length; i++) {
      stripes[i] = new Stripe();
    }
    storage =
        new Storage(
            backend.name(), () -> backend.open(exportName, false), this::storageBroke, pause);
    size = facts().size();
    blockSizes = facts().blockSizes();
    int sector = Math.max(512, blockSizes.minimum());
    if (sector > settings.blockSize()) {
      storage.close();
      throw new NbdException(
          NbdError.EINVAL,
          "the storage has blocks of %d bytes, more than the cache's of %d; raise --cache-block-size"
              .formatted(sector, settings.blockSize()));
    }
    sectorShift = Integer.numberOfTrailingZeros(sector);
    blockShift = Integer.numberOfTrailingZeros(settings.blockSize());
    order = new WriteOrder(sector, size);
    reading = new Reading(this);
    writing = new Writing(this);
    writeBack = new WriteBack(this, background);
  }

  /** Spreads numbers that follow each other. */
  static long scatter(long number) {
    return number * 0x9E3779B97F4A7C15L;
  }

  int id() {
    return id;
  }

  String exportName() {
    return exportName;
  }

  CacheMode mode() {
    return settings.mode();
  }

  ExportFacts facts() {
    return storage.facts();
  }

  Capabilities below() {
    return facts().capabilities();
  }

  long size() {
    return size;
  }

  BlockSizes blockSizes() {
    return blockSizes;
  }

  int blockSize() {
    return 1 << blockShift;
  }

  int blockShift() {
    return blockShift;
  }

  int sectorShift() {
    return sectorShift;
  }

  int sectorsPerBlock() {
    return 1 << (blockShift - sectorShift);
  }

  long blockOf(long offset) {
    return offset >>> blockShift;
  }

  int inBlock(long offset) {
    return (int) (offset & (blockSize() - 1));
  }

  /** How much of a block the export has: all of it but for the last one. */
  int bytesOf(long number) {
    return (int) Math.min(blockSize(), size - (number << blockShift));
  }

  int sectorsOf(long number) {
    return endSector(bytesOf(number));
  }

  /** The first sector that begins at or after a place in a block. */
  int endSector(int inBlock) {
    return (inBlock + (1 << sectorShift) - 1) >>> sectorShift;
  }

  Stripe stripe(long number) {
    return stripes[stripeOf(number)];
  }

  private int stripeOf(long number) {
    return (int) (scatter(number) >>> 58) & (stripes.length - 1);
  }

  /**
   * Locks the stripes of blocks that follow each other: in the order of the stripes, so that no two
   * threads wait for each other. The caller holds none.
   *
   * @return which, for {@link #unlock}
   */
  long lock(long first, long last) {
    long locked = 0;
    for (long number = first; number <= last; number++) {
      locked |= 1L << stripeOf(number);
    }
    for (long left = locked; left != 0; left &= left - 1) {
      stripes[Long.numberOfTrailingZeros(left)].lock.lock();
    }
    return locked;
  }

  void unlock(long locked) {
    for (long left = locked; left != 0; left &= left - 1) {
      stripes[Long.numberOfTrailingZeros(left)].lock.unlock();
    }
  }

  /** Begins an epoch: what is marked from now on is not older than the answer. */
  long beginEpoch() {
    return epoch.incrementAndGet();
  }

  /** Bytes that have yet to be given to the storage. */
  long dirtyBytes() {
    return dirtySectors.get() << sectorShift;
  }

  // What changes a block. The lock of its stripe is held.

  /** Finds a block, or makes one without a frame. */
  Block getOrAdd(Stripe stripe, long number) {
    Block block = stripe.get(number);
    if (block == null) {
      block = new Block(this, number, sectorsPerBlock());
      stripe.add(block);
    }
    return block;
  }

  void attach(Block block, Frame frame) {
    block.frame = frame;
    block.uses = 0;
    frames.enter(block);
  }

  /** Forgets a block that nothing needs; one with a frame is left to be evicted. */
  void tidy(Stripe stripe, Block block) {
    if (block.frame == null && block.isForgettable()) {
      stripe.remove(block);
    }
  }

  Block.Changes changes(Block block) {
    Block.Changes changes = block.changes;
    if (changes == null) {
      changes = new Block.Changes(sectorsPerBlock());
      block.changes = changes;
    }
    return changes;
  }

  /** Marks sectors dirty that are valid now. */
  void dirtied(Stripe stripe, Block block, int from, int to) {
    Block.Changes changes = changes(block);
    int before = Bits.countEither(changes.dirty, changes.writing);
    if (Bits.isEmpty(changes.dirty)) {
      changes.dirtySince = epoch.get();
      changes.dirtyTick = writeBack.tick();
    }
    Bits.set(changes.dirty, from, to);
    settle(stripe, block, changes, before);
  }

  /** What is dirty of the range, or all of it, is about to be given to the storage. */
  void beginWriting(Stripe stripe, Block block, int from, int to, boolean all) {
    Block.Changes changes = changes(block);
    int before = Bits.countEither(changes.dirty, changes.writing);
    if (Bits.any(changes.dirty, from, to)) {
      changes.writingSince =
          Bits.isEmpty(changes.writing)
              ? changes.dirtySince
              : Math.min(changes.writingSince, changes.dirtySince);
    } else if (Bits.isEmpty(changes.writing)) {
      changes.writingSince = epoch.get();
    }
    if (all) {
      Bits.set(changes.writing, from, to);
    } else {
      Bits.addAll(changes.writing, changes.dirty, from, to);
    }
    Bits.clear(changes.dirty, from, to);
    settle(stripe, block, changes, before);
  }

  /** The sectors that are writing have been stored: as they were then. */
  void wrote(Stripe stripe, Block block, int from, int to) {
    Block.Changes changes = changes(block);
    int before = Bits.countEither(changes.dirty, changes.writing);
    noteGiven(changes);
    Bits.addAll(changes.unflushed, changes.writing, from, to);
    Bits.clear(changes.writing, from, to);
    settle(stripe, block, changes, before);
  }

  /**
   * The sectors that are writing were replaced at the storage, and need not be written any more.
   */
  void replaced(Stripe stripe, Block block, int from, int to) {
    Block.Changes changes = block.changes;
    if (changes != null) {
      int before = Bits.countEither(changes.dirty, changes.writing);
      Bits.clear(changes.writing, from, to);
      Bits.clear(changes.unflushed, from, to);
      settle(stripe, block, changes, before);
    }
  }

  /** The sectors that are writing may not have been stored: they are as dirty as before. */
  void failedWriting(Stripe stripe, Block block, int from, int to) {
    Block.Changes changes = block.changes;
    if (changes == null || !Bits.any(changes.writing, from, to)) {
      return;
    }
    int before = Bits.countEither(changes.dirty, changes.writing);
    changes.dirtySince =
        Bits.isEmpty(changes.dirty)
            ? changes.writingSince
            : Math.min(changes.dirtySince, changes.writingSince);
    Bits.addAll(changes.dirty, changes.writing, from, to);
    Bits.clear(changes.writing, from, to);
    settle(stripe, block, changes, before);
  }

  /** Forgets what is valid of the range, but for what is dirty, or being written. */
  void invalidate(Block block, int from, int to) {
    Block.Changes changes = block.changes;
    if (changes == null) {
      Bits.clear(block.valid, from, to);
      return;
    }
    for (int sector = from; sector < to; sector++) {
      if (!Bits.has(changes.dirty, sector) && !Bits.has(changes.writing, sector)) {
        Bits.clear(block.valid, sector, sector + 1);
        Bits.clear(changes.unflushed, sector, sector + 1);
      }
    }
  }

  /** Marks valid sectors as given to the storage by the call that brought their content. */
  void given(Block block, int from, int to) {
    Block.Changes changes = changes(block);
    noteGiven(changes);
    Bits.set(changes.unflushed, from, to);
  }

  private void noteGiven(Block.Changes changes) {
    if (changes.writtenAt < coveredUpTo.get()) {
      Bits.clear(changes.unflushed, 0, sectorsPerBlock());
    }
    changes.writtenAt = epoch.get();
  }

  private void settle(Stripe stripe, Block block, Block.Changes changes, int before) {
    int after = Bits.countEither(changes.dirty, changes.writing);
    if (after != before) {
      dirtySectors.addAndGet(after - before);
      statistics.dirtyBytes.add((long) (after - before) << sectorShift);
    }
    if (changes.listed == (after > 0)) {
      return;
    }
    changes.listed = after > 0;
    if (changes.listed) {
      stripe.list(block);
      writeBack.someDirty(frames.countDirty());
    } else {
      stripe.unlist(block);
      frames.countClean();
    }
  }

  // What is done without a lock held.

  /**
   * Evicts a block.
   *
   * @return its frame; null if it has none or cannot be evicted
   */
  @Nullable Frame evict(Block block) {
    Stripe stripe = stripe(block.number);
    stripe.lock.lock();
    try {
      Frame frame = block.frame;
      if (frame == null || !block.isForgettable()) {
        return null;
      }
      Block.Changes changes = block.changes;
      if (changes != null
          && changes.writtenAt >= coveredUpTo.get()
          && !Bits.isEmpty(changes.unflushed)) {
        raise(lastUncachedWrite, changes.writtenAt);
      }
      block.frame = null;
      stripe.remove(block);
      return frame;
    } finally {
      stripe.lock.unlock();
    }
  }

  /**
   * Copies what is cached, if all that is wanted is.
   *
   * @param isNewUse whether to count it as a use of the block
   */
  boolean readHit(long number, int inBlock, int count, ByteBuffer into, boolean isNewUse) {
    Stripe stripe = stripe(number);
    stripe.lock.lock();
    try {
      Block block = stripe.get(number);
      if (block == null
          || block.frame == null
          || !Bits.all(block.valid, inBlock >>> sectorShift, endSector(inBlock + count))) {
        return false;
      }
      block.frame.read(inBlock, into, count);
      if (isNewUse) {
        block.used();
      }
      return true;
    } finally {
      stripe.lock.unlock();
    }
  }

  /** The storage was changed, or may have been. */
  void storageChanged(boolean isRepeatable) {
    long now = epoch.get();
    raise(lastChanged, now);
    if (!isRepeatable) {
      raise(lastUncachedWrite, now);
    }
  }

  private static void raise(AtomicLong value, long to) {
    value.accumulateAndGet(to, Math::max);
  }

  void forEachStripe(Consumer<Stripe> action) {
    for (Stripe stripe : stripes) {
      stripe.lock.lock();
      try {
        action.accept(stripe);
      } finally {
        stripe.lock.unlock();
      }
    }
  }

  /** What is done with a block, of which the sectors of a range are meant. */
  @FunctionalInterface
  interface RangeAction {
    void on(Stripe stripe, Block block, int first, int last);
  }

  /** Gives every block of a range that is known, with its sectors that lie in it. */
  void forEachKnown(long offset, long end, RangeAction action) {
    long first = blockOf(offset);
    long last = blockOf(end - 1);
    if (last - first > MOST_LOOKED_UP) {
      forEachStripe(
          stripe ->
              stripe.forEach(
                  block -> {
                    if (block.number >= first && block.number <= last) {
                      act(stripe, block, offset, end, action);
                    }
                  }));
      return;
    }
    for (long number = first; number <= last; number++) {
      Stripe stripe = stripe(number);
      stripe.lock.lock();
      try {
        Block block = stripe.get(number);
        if (block != null) {
          act(stripe, block, offset, end, action);
        }
      } finally {
        stripe.lock.unlock();
      }
    }
  }

  private void act(Stripe stripe, Block block, long offset, long end, RangeAction action) {
    long start = block.number << blockShift;
    int from = (int) Math.max(0, offset - start) >>> sectorShift;
    int to = endSector((int) Math.min(blockSize(), end - start));
    action.on(stripe, block, from, to);
  }

  /** The numbers of the blocks with dirty or writing sectors that are wanted, sorted. */
  long[] dirtyBlocks(java.util.function.Predicate<Block> wanted) {
    LongStream.Builder found = LongStream.builder();
    forEachStripe(
        stripe ->
            stripe.forEachDirty(
                block -> {
                  if (wanted.test(block)) {
                    found.add(block.number);
                  }
                }));
    return found.build().sorted().toArray();
  }

  /**
   * What of a range has yet to be given to the storage, in order, and no part next to another.
   *
   * @param most how many parts are given at most: the first ones
   */
  List<ByteRange> dirtyRanges(long offset, long end, int most) {
    long first = blockOf(offset);
    long last = blockOf(end - 1);
    ByteRange asked = new ByteRange(offset, end);
    List<ByteRange> found = new ArrayList<>();
    for (long number : dirtyBlocks(block -> block.number >= first && block.number <= last)) {
      Stripe stripe = stripe(number);
      stripe.lock.lock();
      try {
        Block block = stripe.get(number);
        Block.Changes changes = block == null ? null : block.changes;
        if (changes != null) {
          addDirty(number, changes, asked, found);
        }
      } finally {
        stripe.lock.unlock();
      }
      if (found.size() > most) {
        return found.subList(0, most);
      }
    }
    return found;
  }

  private void addDirty(
      long number, Block.Changes changes, ByteRange asked, List<ByteRange> found) {
    long start = number << blockShift;
    for (int sector = 0; sector < sectorsOf(number); sector++) {
      long from = start + ((long) sector << sectorShift);
      ByteRange range = new ByteRange(from, from + (1L << sectorShift)).and(asked);
      if (!range.isEmpty()
          && (Bits.has(changes.dirty, sector) || Bits.has(changes.writing, sector))) {
        boolean goesOn = !found.isEmpty() && found.getLast().end() == range.start();
        long since = goesOn ? found.removeLast().start() : range.start();
        found.add(new ByteRange(since, range.end()));
      }
    }
  }

  /**
   * Makes everything durable that was written before this call, by whomever.
   *
   * @throws IOException if that is not certain
   */
  void flush() throws IOException {
    flushes.run();
  }

  private void writeBackAndFlush() throws IOException {
    for (int tries = 0; ; tries++) {
      // What a handle that has broken lost is dirty again after this.
      Handle flushed = storage.ensureOpen();
      List<IOException> failures = new ArrayList<>();
      writeBack.allBefore(beginEpoch(), failures);
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
    if (lastChanged.get() >= coveredUpTo.get()) {
      flushThrough();
    }
  }

  /** A flush of the storage, for this caller alone. */
  void flushThrough() throws IOException {
    long before = beginEpoch();
    if (below().has(Capability.FLUSH)) {
      try {
        storage.run(Handle::flush);
      } catch (LostWritesException lost) {
        // It covers what is there.
        lose(lost);
      }
    }
    raise(coveredUpTo, before);
  }

  /**
   * The storage's handle has broken. What it was given and no flush has covered may not be there:
   * it is dirty again where it is still cached, and reported where it is not.
   */
  private void storageBroke() {
    long covered = coveredUpTo.get();
    boolean through = mode() == CacheMode.WRITETHROUGH;
    forEachStripe(
        stripe ->
            stripe.forEach(
                block -> {
                  block.outdate(0, sectorsPerBlock());
                  if (through) {
                    invalidate(block, 0, sectorsPerBlock());
                  } else {
                    distrust(stripe, block, 0, sectorsPerBlock());
                  }
                }));
    if ((through ? lastChanged : lastUncachedWrite).get() >= covered) {
      lastUncachedWrite.set(-1);
      lose(new IOException("its storage broke before it had flushed them"));
    }
  }

  private void lose(IOException failure) {
    losses.add(exportName, failure);
    losses.log();
  }

  /** What of the range was given to the storage, and no flush has covered, is dirty again. */
  void distrust(Stripe stripe, Block block, int from, int to) {
    Block.Changes changes = block.changes;
    if (changes != null && changes.writtenAt >= coveredUpTo.get()) {
      int before = Bits.countEither(changes.dirty, changes.writing);
      Bits.retainAll(changes.unflushed, block.valid, from, to);
      if (Bits.any(changes.unflushed, from, to)) {
        Bits.addAll(changes.dirty, changes.unflushed, from, to);
        Bits.clear(changes.unflushed, from, to);
        changes.dirtySince = 0;
        settle(stripe, block, changes, before);
      }
    }
  }

  /**
   * Stores everything. No client has a handle, and none gets one.
   *
   * @throws IOException if something could not be stored; the message says how much
   */
  void store() throws IOException {
    if (mode() != CacheMode.WRITETHROUGH) {
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
    FutureTask<@Nullable Void> storing =
        new FutureTask<>(
            () -> {
              store();
              return null;
            });
    Thread.ofVirtual().name("cache-store").start(storing);
    long most = patience.toNanos();
    // One call that hangs does not say that others do, so try in any case.
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
    forEachStripe(stripe -> stripe.forEach(block -> sectors.add(unstoredOf(block))));
    long bytes = sectors.sum() << sectorShift;
    boolean isAll = lastUncachedWrite.get() < coveredUpTo.get();
    return bytes > 0
        ? "%s%d bytes that were written to export \"%s\", and not flushed, cannot be stored: %s"
            .formatted(isAll ? "" : "at least ", bytes, exportName, why)
        : "what was written to export \"%s\" since the last flush may be lost: %s"
            .formatted(exportName, why);
  }

  private int unstoredOf(Block block) {
    Block.Changes changes = block.changes;
    if (changes == null) {
      return 0;
    }
    long[] unstored = changes.dirty.clone();
    Bits.addAll(unstored, changes.writing, 0, sectorsPerBlock());
    return changes.writtenAt < coveredUpTo.get()
        ? Bits.countEither(unstored, unstored)
        : Bits.countEither(unstored, changes.unflushed);
  }

  /**
   * Lets go of everything, stored or not.
   *
   * @throws IOException also if something is lost that nobody was told of
   */
  void discard() throws IOException {
    writeBack.stop();
    List<Frame> unused = new ArrayList<>();
    forEachStripe(
        stripe ->
            stripe.forEach(
                block -> {
                  Frame frame = block.frame;
                  if (frame != null) {
                    frames.leave(block);
                    unused.add(frame);
                    block.frame = null;
                  }
                  Block.Changes changes = block.changes;
                  if (changes != null && changes.listed) {
                    int lost = Bits.countEither(changes.dirty, changes.writing);
                    statistics.dirtyBytes.add(-((long) lost << sectorShift));
                    frames.countClean();
                    changes.listed = false;
                  }
                  stripe.remove(block);
                }));
    unused.forEach(frames::giveBack);
    storage.close();
    Optional<String> unreported = losses.unreported();
    if (unreported.isPresent()) {
      throw new IOException(unreported.get());
    }
  }
}
