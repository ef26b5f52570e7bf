package nbd.cache;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import nbd.cache.Storage.Call;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.threads.RangeLocks.Turn;

/**
 * What clients change. A write goes into the cache alone, where the mode is so and there is room;
 * else it goes to the storage, as trims and zeroes always do, in {@link WriteOrder} with all that
 * is given to the storage, and the cache follows when the storage has answered.
 *
 * <p>While such a call is under way, reads get what was there before, and writes into the cache are
 * newer than the call: the sectors that they made dirty are left as they are at its end. A write
 * that would be mixed with the call in one sector goes to the storage too, behind it.
 */
final class Writing {
  /** After so many changes of the state under its feet a write goes through. */
  private static final int TRIES = 8;

  private final ExportCache cache;

  Writing(ExportCache cache) {
    this.cache = cache;
  }

  /** How an attempt to write into the cache ended: but for the first, nothing has happened. */
  private enum Outcome {
    WRITTEN,
    /** Blocks have no frames, and not enough were given. */
    NO_FRAME,
    /** Too much waits for being written back. */
    TOO_DIRTY,
    /** A sector is written in part, and the rest of it is missing. */
    MISSING_REST,
    /** A sector is being changed at the storage, and this write would be mixed with that. */
    CHANGING
  }

  /** Writes, in the way that the mode demands. */
  void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    boolean fua = flags.has(CommandFlag.FUA);
    switch (cache.mode()) {
      case WRITETHROUGH -> through(from, offset, flags);
      case WRITEBACK -> {
        if (fua) {
          throughDurably(from, offset);
        } else {
          intoCache(from, offset);
        }
      }
      case UNSAFE -> intoCache(from, offset);
    }
  }

  /**
   * Writes into the cache if that needs no waiting.
   *
   * @return whether all was written; if not, the position is where it was
   */
  boolean writeNow(ByteBuffer from, long offset) {
    if (cache.mode() == CacheMode.WRITETHROUGH) {
      return false;
    }
    Spares spares = new Spares();
    try {
      int count = from.remaining();
      Outcome outcome = attempt(offset, count, from, spares);
      while (outcome == Outcome.NO_FRAME && spares.fill()) {
        outcome = attempt(offset, count, from, spares);
      }
      if (outcome != Outcome.WRITTEN) {
        return false;
      }
      from.position(from.limit());
      return true;
    } finally {
      spares.giveBack();
    }
  }

  /** Frames for blocks that may need one. */
  private final class Spares {
    private final List<Frame> taken = new ArrayList<>(1);

    /** How many are needed. */
    private int needed = 1;

    /** Whether there are as many as are needed; if not, says so to the next {@link #fill}. */
    boolean has(int count) {
      needed = Math.max(1, count);
      return taken.size() >= count;
    }

    boolean fill() {
      while (taken.size() < needed) {
        Frame frame = cache.frames.take();
        if (frame == null) {
          return false;
        }
        taken.add(frame);
      }
      return true;
    }

    Frame use() {
      return taken.removeLast();
    }

    void giveBack() {
      taken.forEach(cache.frames::giveBack);
      taken.clear();
    }
  }

  private void intoCache(ByteBuffer from, long offset) throws IOException {
    int start = from.position();
    Spares spares = new Spares();
    try {
      while (from.hasRemaining()) {
        long at = offset + from.position() - start;
        int count = Math.min(from.remaining(), cache.blockSize() - cache.inBlock(at));
        if (writeBlock(at, count, from, spares)) {
          from.position(from.position() + count);
        } else {
          ByteBuffer part = from.duplicate().limit(from.position() + count);
          through(part, at, CommandFlags.NONE);
          from.position(part.position());
        }
      }
    } finally {
      spares.giveBack();
    }
  }

  /**
   * Writes a part of one block into the cache, waiting for room; false if that is not possible, and
   * has not happened.
   */
  private boolean writeBlock(long offset, int count, ByteBuffer from, Spares spares) {
    for (int tries = 0; tries < TRIES; tries++) {
      Outcome outcome = attempt(offset, count, from, spares);
      boolean goOn =
          switch (outcome) {
            case WRITTEN -> true;
            case NO_FRAME -> spares.fill() || cache.writeBack.relieve();
            case TOO_DIRTY -> cache.writeBack.relieve();
            case MISSING_REST ->
                cache.reading.load(cache.blockOf(offset), cache.inBlock(offset), count);
            // Going through, it waits for its turn behind the change.
            case CHANGING -> false;
          };
      if (outcome == Outcome.WRITTEN || !goOn) {
        return goOn;
      }
    }
    return false;
  }

  /**
   * Writes into the cache, all of it or nothing: others may have seen, and replaced, a part that
   * was there alone, so it could neither be taken back nor written again.
   */
  private Outcome attempt(long offset, int count, ByteBuffer from, Spares spares) {
    long end = offset + count;
    long first = cache.blockOf(offset);
    long last = cache.blockOf(end - 1);
    long locked = cache.lock(first, last);
    try {
      Outcome outcome = check(offset, end, spares);
      if (outcome == Outcome.WRITTEN) {
        for (long number = first; number <= last; number++) {
          long start = Math.max(offset, number << cache.blockShift());
          long stop = Math.min(end, (number + 1) << cache.blockShift());
          int at = from.position() + (int) (start - offset);
          put(number, cache.inBlock(start), (int) (stop - start), from, at, spares);
        }
      }
      return outcome;
    } finally {
      cache.unlock(locked);
    }
  }

  /** Whether a range can be written; the locks of all its blocks are held. */
  private Outcome check(long offset, long end, Spares spares) {
    long first = cache.blockOf(offset);
    long last = cache.blockOf(end - 1);
    if (!cache.order.allowsBeside(offset, end)) {
      return Outcome.CHANGING;
    }
    if ((isPart(offset) && !isValid(first, cache.inBlock(offset)))
        || (isPart(end) && end != cache.size() && !isValid(last, cache.inBlock(end)))) {
      return Outcome.MISSING_REST;
    }
    int toBeDirty = 0;
    int withoutFrame = 0;
    for (long number = first; number <= last; number++) {
      Block block = cache.stripe(number).get(number);
      toBeDirty += block != null && block.changes != null && block.changes.listed ? 0 : 1;
      withoutFrame += block != null && block.frame != null ? 0 : 1;
    }
    if (toBeDirty > 0 && cache.frames.dirty() + toBeDirty > cache.frames.dirtyLimit()) {
      return Outcome.TOO_DIRTY;
    }
    return spares.has(withoutFrame) ? Outcome.WRITTEN : Outcome.NO_FRAME;
  }

  /** Writes a part of a block, which {@link #check} has found to be possible. */
  private void put(long number, int inBlock, int count, ByteBuffer from, int at, Spares spares) {
    Stripe stripe = cache.stripe(number);
    Block block = cache.getOrAdd(stripe, number);
    Frame frame = block.frame;
    if (frame == null) {
      frame = spares.use();
      cache.attach(block, frame);
    }
    int first = inBlock >>> cache.sectorShift();
    int last = cache.endSector(inBlock + count);
    frame.write(inBlock, from, at, count);
    Bits.set(block.valid, first, last);
    cache.dirtied(stripe, block, first, last);
    block.used();
  }

  /** Whether the sector at a place in a block is known. */
  private boolean isValid(long number, int inBlock) {
    Block block = cache.stripe(number).get(number);
    int sector = inBlock >>> cache.sectorShift();
    return block != null && block.isValid(sector, sector + 1);
  }

  /** Whether a sector begins before this place in the export or a block, and ends after it. */
  private boolean isPart(long offset) {
    return (offset & ((1L << cache.sectorShift()) - 1)) != 0;
  }

  private void throughDurably(ByteBuffer from, long offset) throws IOException {
    if (cache.below().has(Capability.FUA)) {
      through(from, offset, CommandFlags.of(CommandFlag.FUA));
    } else {
      cache.flushGiven(through(from, offset, CommandFlags.NONE));
    }
  }

  /**
   * Writes to the storage, and lets the cache follow.
   *
   * @return the handle on which it was done
   */
  private Handle through(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    ByteBuffer data = from.duplicate();
    long end = offset + from.remaining();
    boolean isDurable = flags.has(CommandFlag.FUA);
    return change(
        offset,
        end,
        handle -> handle.write(from, offset, flags),
        () -> {
          for (long at = offset; at < end; ) {
            int count = (int) Math.min(cache.blockSize() - cache.inBlock(at), end - at);
            follow(at, count, data, data.position() + (int) (at - offset), isDurable);
            at += count;
          }
        });
  }

  /**
   * A trim or a write of zeroes.
   *
   * @param offset a multiple of the sector, as {@code end} is, unless it is the export's end
   * @return the handle on which it was done
   */
  Handle clear(long offset, long end, Call call) throws IOException {
    return change(
        offset,
        end,
        call,
        () -> {
          cache.forEachKnown(
              offset,
              end,
              (stripe, block, first, last) -> {
                cache.replaced(stripe, block, first, last);
                cache.invalidate(block, first, last);
                block.outdate(first, last);
                cache.tidy(stripe, block);
              });
          cache.storageChanged(false);
        });
  }

  /**
   * Makes a call that changes the storage, when it is its turn. What is dirty of the range is being
   * replaced by it, and dirty again if it fails.
   *
   * @param follow brings the cache up to date afterwards
   * @return the handle on which it was done
   */
  private Handle change(long offset, long end, Call call, Runnable follow) throws IOException {
    Turn turn = cache.order.enterChange(offset, end);
    boolean succeeded = false;
    try {
      cache.forEachKnown(
          offset, end, (stripe, block, first, last) -> beginReplacing(stripe, block, offset, end));
      Handle changed =
          cache.storage.run(
              handle -> {
                call.on(handle);
                follow.run();
              });
      succeeded = true;
      return changed;
    } finally {
      if (!succeeded) {
        cache.storageChanged(true);
        cache.forEachKnown(offset, end, this::failed);
      }
      cache.order.leave(turn);
    }
  }

  private void beginReplacing(Stripe stripe, Block block, long offset, long end) {
    long start = block.number << cache.blockShift();
    int first = cache.endSector((int) Math.max(0, offset - start));
    int bytes = cache.bytesOf(block.number);
    int endInBlock = (int) Math.min(bytes, end - start);
    int last = endInBlock == bytes ? cache.endSector(bytes) : endInBlock >>> cache.sectorShift();
    if (first < last && block.changes != null) {
      cache.beginWriting(stripe, block, first, last, false);
    }
  }

  /**
   * What the range has now is undefined, or what it had before, if the storage refused. So what it
   * was given before and has not flushed is not certain to be there to be flushed: it is given
   * again, as what was being replaced is.
   */
  private void failed(Stripe stripe, Block block, int first, int last) {
    cache.failedWriting(stripe, block, first, last);
    cache.distrust(stripe, block, first, last);
    cache.invalidate(block, first, last);
    block.outdate(first, last);
    cache.tidy(stripe, block);
  }

  /** What a write left at the storage is put into the cache, but over what is newer there. */
  private void follow(long offset, int count, ByteBuffer data, int at, boolean isDurable) {
    long number = cache.blockOf(offset);
    int inBlock = cache.inBlock(offset);
    int end = inBlock + count;
    int first = inBlock >>> cache.sectorShift();
    int last = cache.endSector(end);
    Spares spares = new Spares();
    Stripe stripe = cache.stripe(number);
    boolean isFilled = !hasFrame(stripe, number) && spares.fill();
    stripe.lock.lock();
    try {
      Block block = stripe.get(number);
      if (isFilled && (block == null || block.frame == null)) {
        block = cache.getOrAdd(stripe, number);
        cache.attach(block, spares.use());
      }
      boolean isRepeatable = false;
      if (block != null) {
        isRepeatable = block.frame != null && cache.mode() != CacheMode.WRITETHROUGH;
        copy(block, inBlock, end, data, at);
        cache.replaced(stripe, block, first, last);
        if (isRepeatable) {
          cache.given(block, first, last);
        }
        block.outdate(first, last);
        // A sector of which only a part is known cannot be written again.
        isRepeatable &= Bits.all(block.valid, first, last);
      }
      cache.storageChanged(isRepeatable || isDurable);
    } finally {
      stripe.lock.unlock();
      spares.giveBack();
    }
  }

  private boolean hasFrame(Stripe stripe, long number) {
    stripe.lock.lock();
    try {
      Block block = stripe.get(number);
      return block != null && block.frame != null;
    } finally {
      stripe.lock.unlock();
    }
  }

  private void copy(Block block, int inBlock, int end, ByteBuffer data, int at) {
    Frame frame = block.frame;
    if (frame == null) {
      return;
    }
    int sectorShift = cache.sectorShift();
    for (int sector = inBlock >>> sectorShift; sector < cache.endSector(end); sector++) {
      int from = Math.max(inBlock, sector << sectorShift);
      int to = Math.min(end, (sector + 1) << sectorShift);
      boolean isWhole = !isPart(from) && (!isPart(to) || to == cache.bytesOf(block.number));
      boolean isDirty = block.changes != null && Bits.has(block.changes.dirty, sector);
      // What was written while the call was under way is newer: WriteOrder lets nobody write into
      // the sectors that are here in part. What is dirty of those has become so before.
      if (isWhole ? !isDirty : Bits.has(block.valid, sector)) {
        frame.write(from, data, at + from - inBlock, to - from);
        Bits.set(block.valid, sector, sector + 1);
      }
    }
  }
}
