package nbd.filter.cache;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.backend.Fua;
import nbd.filter.cache.Storage.Call;
import nbd.filter.cache.WriteOrder.Turn;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import org.jspecify.annotations.Nullable;

/**
 * What clients change. A write goes into the cache alone, where the mode is so and there is room;
 * else it goes to the storage, as trims and zeroes always do, in {@link WriteOrder} with all that
 * is given to the storage, and the cache follows when the storage has answered.
 *
 * <p>While such a call is under way, reads get what was there before, and writes into the cache are
 * newer than the call: the sectors that they made dirty are left as they are at its end.
 */
final class Writing {
  /** After so many changes of the state under its feet a write goes through. */
  private static final int TRIES = 8;

  private final ExportCache cache;

  Writing(ExportCache cache) {
    this.cache = cache;
  }

  /** How writing into the cache ended. */
  private enum Outcome {
    WRITTEN,
    /** The block has no frame, and none was given. */
    NO_FRAME,
    /** Too much waits for being written back. */
    TOO_DIRTY,
    /** A sector is written in part, and the rest of it is missing. */
    MISSING_REST
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
    int start = from.position();
    Spare spare = new Spare();
    try {
      while (from.hasRemaining()) {
        long at = offset + from.position() - start;
        int count = Math.min(from.remaining(), cache.blockSize() - cache.inBlock(at));
        Outcome outcome = tryBlock(at, count, from, spare);
        if (outcome == Outcome.NO_FRAME && spare.fill()) {
          outcome = tryBlock(at, count, from, spare);
        }
        if (outcome != Outcome.WRITTEN) {
          from.position(start);
          return false;
        }
        from.position(from.position() + count);
      }
      return true;
    } finally {
      spare.giveBack();
    }
  }

  /** A frame for a block that may need one. */
  private final class Spare {
    @Nullable Frame frame;

    boolean fill() {
      if (frame == null) {
        frame = cache.frames.take();
      }
      return frame != null;
    }

    void giveBack() {
      if (frame != null) {
        cache.frames.giveBack(frame);
        frame = null;
      }
    }
  }

  private void intoCache(ByteBuffer from, long offset) throws IOException {
    int start = from.position();
    Spare spare = new Spare();
    try {
      while (from.hasRemaining()) {
        long at = offset + from.position() - start;
        int count = Math.min(from.remaining(), cache.blockSize() - cache.inBlock(at));
        if (writeBlock(at, count, from, spare)) {
          from.position(from.position() + count);
        } else {
          ByteBuffer part = from.duplicate().limit(from.position() + count);
          through(part, at, CommandFlags.NONE);
          from.position(part.position());
        }
      }
    } finally {
      spare.giveBack();
    }
  }

  /** Writes a part of one block into the cache, waiting for room; false if there is none. */
  private boolean writeBlock(long offset, int count, ByteBuffer from, Spare spare) {
    for (int tries = 0; tries < TRIES; tries++) {
      Outcome outcome = tryBlock(offset, count, from, spare);
      boolean goOn =
          switch (outcome) {
            case WRITTEN -> true;
            case NO_FRAME -> spare.fill() || cache.writeBack.relieve();
            case TOO_DIRTY -> cache.writeBack.relieve();
            case MISSING_REST ->
                cache.reading.load(cache.blockOf(offset), cache.inBlock(offset), count);
          };
      if (outcome == Outcome.WRITTEN || !goOn) {
        return goOn;
      }
    }
    return false;
  }

  private Outcome tryBlock(long offset, int count, ByteBuffer from, Spare spare) {
    long number = cache.blockOf(offset);
    int inBlock = cache.inBlock(offset);
    int end = inBlock + count;
    int first = inBlock >>> cache.sectorShift();
    int last = cache.endSector(end);
    Stripe stripe = cache.stripe(number);
    stripe.lock.lock();
    try {
      Block block = stripe.get(number);
      Frame frame = block == null ? null : block.frame;
      if ((isPart(inBlock) && !isValid(block, first))
          || (isPartAtEnd(number, end) && !isValid(block, last - 1))) {
        return Outcome.MISSING_REST;
      }
      boolean isDirty = block != null && block.changes != null && block.changes.listed;
      if (!isDirty && cache.frames.dirty() >= cache.frames.mostDirty()) {
        return Outcome.TOO_DIRTY;
      }
      if (block == null || frame == null) {
        frame = spare.frame;
        if (frame == null) {
          return Outcome.NO_FRAME;
        }
        block = cache.getOrAdd(stripe, number);
        cache.attach(block, frame);
        spare.frame = null;
      }
      frame.write(inBlock, from, from.position(), count);
      Bits.set(block.valid, first, last);
      cache.dirtied(stripe, block, first, last);
      block.used();
      return Outcome.WRITTEN;
    } finally {
      stripe.lock.unlock();
    }
  }

  private static boolean isValid(@Nullable Block block, int sector) {
    return block != null && block.isValid(sector, sector + 1);
  }

  /** Whether a sector begins before this place in its block, and ends after it. */
  private boolean isPart(int inBlock) {
    return (inBlock & ((1 << cache.sectorShift()) - 1)) != 0;
  }

  private boolean isPartAtEnd(long number, int end) {
    return isPart(end) && end != cache.bytesOf(number);
  }

  private void throughDurably(ByteBuffer from, long offset) throws IOException {
    if (cache.below().fua() == Fua.NATIVE) {
      through(from, offset, CommandFlags.of(CommandFlag.FUA));
    } else {
      cache.flushGiven(through(from, offset, CommandFlags.NONE));
    }
  }

  /**
   * Writes to the storage, and lets the cache follow.
   *
   * @return the storage's generation in which it was done
   */
  private long through(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
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
   * @return the storage's generation in which it was done
   */
  long clear(long offset, long end, Call call) throws IOException {
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
   * @return the storage's generation in which it was done
   */
  private long change(long offset, long end, Call call, Runnable follow) throws IOException {
    Turn turn =
        cache.order.enter(
            offset >>> cache.sectorShift() << cache.sectorShift(),
            (end + (1L << cache.sectorShift()) - 1) >>> cache.sectorShift() << cache.sectorShift());
    boolean succeeded = false;
    try {
      cache.forEachKnown(
          offset, end, (stripe, block, first, last) -> beginReplacing(stripe, block, offset, end));
      long generation = cache.storage.run(call);
      follow.run();
      // Only now: what breaks later finds that the storage was changed.
      if (cache.storage.generation() != generation) {
        throw new NbdException(NbdError.EIO, "the storage broke before it was certain");
      }
      succeeded = true;
      return generation;
    } finally {
      if (!succeeded) {
        // What the range has now is undefined, so there is nothing that could be lost of it; but a
        // sector that it ends in may have been stored for somebody else.
        cache.storageChanged(!isPart(cache.inBlock(offset)) && !isPart(cache.inBlock(end)));
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

  private void failed(Stripe stripe, Block block, int first, int last) {
    cache.failedWriting(stripe, block, first, last);
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
    Spare spare = new Spare();
    Stripe stripe = cache.stripe(number);
    boolean hasFrame = hasFrame(stripe, number) || spare.fill();
    stripe.lock.lock();
    try {
      Block block = stripe.get(number);
      Frame given = spare.frame;
      if (hasFrame && given != null && (block == null || block.frame == null)) {
        block = cache.getOrAdd(stripe, number);
        cache.attach(block, given);
        spare.frame = null;
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
      spare.giveBack();
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
      // A sector that is dirty as a whole is newer; of one that is dirty elsewhere, this part may
      // be either: it will be written back as it is here.
      if (isWhole ? !isDirty : Bits.has(block.valid, sector)) {
        frame.write(from, data, at + from - inBlock, to - from);
        Bits.set(block.valid, sector, sector + 1);
      }
    }
  }
}
