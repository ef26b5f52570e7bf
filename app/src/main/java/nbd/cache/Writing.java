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
import nbd.storage.Operation;
import nbd.threads.RangeLocks.Turn;

/**
 * The changes that clients make. A write goes into the cache alone, if the mode says so and there
 * is room; else it goes to the storage, as trims and zeroes always do, in {@link WriteOrder} with
 * all calls that change the storage, and the cache follows when the storage has answered.
 *
 * <p>While such a call is under way, reads get what was there before, and writes into the cache are
 * newer than the call: the sectors that they made dirty are left as they are at its end. A write
 * that would be mixed with the call in one sector goes to the storage too, behind it.
 */
final class Writing {
  /** The attempts to write into the cache after which a write goes to the storage. */
  private static final int TRIES = 8;

  private final ExportCache cache;
  private final Grid grid;

  Writing(ExportCache cache) {
    this.cache = cache;
    this.grid = cache.grid;
  }

  /** The reason for which an attempt to write into the cache has done nothing. */
  private enum Obstacle {
    /** None: it has written. */
    NONE,
    /** Blocks have no frames, and not enough were given. */
    NO_FRAME,
    /** The dirty limit is reached. */
    TOO_DIRTY,
    /** A sector is written in part, and the rest of it is missing. */
    MISSING_REST,
    /** A sector is being changed at the storage, and this write would be mixed with that. */
    CHANGING
  }

  /** Makes a write, in the way that the mode demands. */
  void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    boolean fua = flags.has(CommandFlag.FUA);
    if (cache.mode == CacheMode.WRITETHROUGH || (fua && passesFua())) {
      through(from, offset, flags);
    } else if (fua && cache.mode == CacheMode.WRITEBACK) {
      cache.flushGiven(through(from, offset, CommandFlags.NONE));
    } else {
      intoCache(from, offset);
    }
  }

  /** Says whether the storage gets a command's flag FUA; else the command may need a flush. */
  boolean passesFua() {
    return switch (cache.mode) {
      case WRITETHROUGH -> true;
      case WRITEBACK -> cache.below().has(Capability.FUA);
      case UNSAFE -> false;
    };
  }

  /**
   * Writes into the cache if that needs no waiting.
   *
   * @return whether all was written; if not, the position is where it was
   */
  boolean writeNow(ByteBuffer from, long offset) {
    if (cache.mode == CacheMode.WRITETHROUGH) {
      return false;
    }
    Spares spares = new Spares();
    try {
      int count = from.remaining();
      Obstacle met = attempt(offset, count, from, spares);
      while (met == Obstacle.NO_FRAME && spares.fill()) {
        met = attempt(offset, count, from, spares);
      }
      if (met != Obstacle.NONE) {
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

    /** The number that is needed. */
    private int needed = 1;

    /** Says whether there are so many; if not, the next {@link #fill} takes them. */
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
        int count = grid.inFirstBlock(at, from.remaining());
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
      Obstacle met = attempt(offset, count, from, spares);
      boolean goesOn =
          switch (met) {
            case NONE -> true;
            case NO_FRAME -> spares.fill() || cache.writeBack.relieve();
            case TOO_DIRTY -> cache.writeBack.relieve();
            case MISSING_REST ->
                cache.reading.load(grid.blockOf(offset), grid.inBlock(offset), count);
            // Going through, it waits for its turn behind the change.
            case CHANGING -> false;
          };
      if (met == Obstacle.NONE || !goesOn) {
        return goesOn;
      }
    }
    return false;
  }

  /**
   * Writes into the cache, all of it or nothing: other clients may have seen, and replaced, a part
   * that was there alone, so it could neither be taken back nor written again.
   */
  private Obstacle attempt(long offset, int count, ByteBuffer from, Spares spares) {
    long end = offset + count;
    long locked = cache.index.lock(grid.blockOf(offset), grid.blockOf(end - 1));
    try {
      Obstacle met = obstacle(offset, end, spares);
      if (met == Obstacle.NONE) {
        int part;
        for (long at = offset; at < end; at += part) {
          part = grid.inFirstBlock(at, end - at);
          put(at, part, from, from.position() + (int) (at - offset), spares);
        }
      }
      return met;
    } finally {
      cache.index.unlock(locked);
    }
  }

  /** Finds what keeps a range from being written; the locks of all its blocks are held. */
  private Obstacle obstacle(long offset, long end, Spares spares) {
    if (!cache.order.allowsBeside(offset, end)) {
      return Obstacle.CHANGING;
    }
    if (lacksRest(offset) || (end != grid.size() && lacksRest(end))) {
      return Obstacle.MISSING_REST;
    }
    int toBeDirty = 0;
    int withoutFrame = 0;
    for (long number = grid.blockOf(offset); number <= grid.blockOf(end - 1); number++) {
      Block block = cache.index.get(number);
      toBeDirty += block != null && block.isDirty() ? 0 : 1;
      withoutFrame += block != null && block.frame != null ? 0 : 1;
    }
    if (toBeDirty > 0 && cache.frames.dirty() + toBeDirty > cache.frames.dirtyLimit()) {
      return Obstacle.TOO_DIRTY;
    }
    return spares.has(withoutFrame) ? Obstacle.NONE : Obstacle.NO_FRAME;
  }

  /** Says whether a place is inside a sector that is not valid. */
  private boolean lacksRest(long offset) {
    if (!grid.isInsideSector(offset)) {
      return false;
    }
    Block block = cache.index.get(grid.blockOf(offset));
    int sector = grid.sector(grid.inBlock(offset));
    return block == null || !block.isValid(sector, sector + 1);
  }

  /** Writes a part of a block, which {@link #obstacle} has found to be possible. */
  private void put(long offset, int count, ByteBuffer from, int at, Spares spares) {
    int inBlock = grid.inBlock(offset);
    int first = grid.sector(inBlock);
    int last = grid.endSector(inBlock + count);
    Block block = cache.index.getOrAdd(grid.blockOf(offset));
    Frame frame = block.frame;
    if (frame == null) {
      frame = spares.use();
      cache.frames.give(block, frame);
    }
    frame.write(inBlock, from, at, count);
    Bits.set(block.valid, first, last);
    cache.states.dirtied(block, first, last);
    block.used();
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
        handle -> {
          handle.write(from, offset, flags);
          int part;
          for (long at = offset; at < end; at += part) {
            part = grid.inFirstBlock(at, end - at);
            follow(at, part, data, data.position() + (int) (at - offset), isDurable);
          }
        });
  }

  /**
   * Makes a trim or a write of zeroes.
   *
   * @param offset a multiple of the sector, as {@code end} is, unless it is the export's end
   * @return the handle on which it was done
   */
  Handle clear(long offset, long end, Operation clearing) throws IOException {
    return change(
        offset,
        end,
        handle -> {
          handle.run(clearing);
          cache.index.forEachKnown(
              offset,
              end,
              (block, first, last) -> {
                cache.states.replaced(block, first, last);
                forget(block, first, last);
              });
          cache.epochs.changed(false);
        });
  }

  private void forget(Block block, int first, int last) {
    cache.states.invalidate(block, first, last);
    block.outdate(first, last);
    cache.index.tidy(block);
  }

  /**
   * Makes a call that changes the storage, when it is its turn. What is dirty of the range is being
   * replaced by it, and dirty again if it fails.
   *
   * @param call also brings the cache up to date
   * @return the handle on which it was done
   */
  private Handle change(long offset, long end, Call call) throws IOException {
    Turn turn = cache.order.enterChange(offset, end);
    boolean succeeded = false;
    try {
      Handle changed =
          cache.storage.run(
              handle -> {
                // Not before: a break found on the way here makes older data dirty.
                beginReplacing(grid.alignedUp(offset), grid.alignedDown(end));
                call.on(handle);
              });
      succeeded = true;
      return changed;
    } finally {
      if (!succeeded) {
        cache.epochs.changed(true);
        cache.index.forEachKnown(offset, end, this::failed);
      }
      cache.order.leave(turn);
    }
  }

  private void beginReplacing(long start, long end) {
    if (start < end) {
      cache.index.forEachKnown(start, end, cache.states::beginReplacing);
    }
  }

  /**
   * Deals with a failed change, after which the storage's content is undefined, or as before if it
   * has refused. So sectors that it was given before, and has not flushed, may not be there any
   * more: they are given again, as those that were being replaced are.
   */
  private void failed(Block block, int first, int last) {
    cache.states.failedWriting(block, first, last);
    cache.states.distrust(block, first, last);
    forget(block, first, last);
  }

  /** Puts what a write left at the storage into the cache, but over what is newer there. */
  private void follow(long offset, int count, ByteBuffer data, int at, boolean isDurable) {
    int inBlock = grid.inBlock(offset);
    int first = grid.sector(inBlock);
    int last = grid.endSector(inBlock + count);
    Spares spares = new Spares();
    Stripe stripe = cache.index.stripe(grid.blockOf(offset));
    // Evicting for a frame takes other locks.
    boolean isFilled = !hasFrame(stripe, grid.blockOf(offset)) && spares.fill();
    stripe.lock.lock();
    try {
      Block block = stripe.get(grid.blockOf(offset));
      if (isFilled && (block == null || block.frame == null)) {
        block = cache.index.getOrAdd(grid.blockOf(offset));
        cache.frames.give(block, spares.use());
      }
      boolean isRepeatable = false;
      if (block != null) {
        copy(block, inBlock, inBlock + count, data, at);
        cache.states.replaced(block, first, last);
        if (block.frame != null && cache.mode != CacheMode.WRITETHROUGH) {
          cache.states.given(block, first, last);
          // A sector of which only a part is known cannot be written again.
          isRepeatable = Bits.all(block.valid, first, last);
        }
        block.outdate(first, last);
      }
      cache.epochs.changed(isRepeatable || isDurable);
    } finally {
      stripe.lock.unlock();
      spares.giveBack();
    }
  }

  private static boolean hasFrame(Stripe stripe, long number) {
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
    for (int sector = grid.sector(inBlock); sector < grid.endSector(end); sector++) {
      int from = Math.max(inBlock, sector << grid.sectorShift());
      int to = Math.min(end, (sector + 1) << grid.sectorShift());
      boolean isWhole =
          !grid.isInsideSector(from)
              && (!grid.isInsideSector(to) || to == grid.bytesOf(block.number));
      boolean isDirty = block.changes != null && Bits.has(block.changes.dirty, sector);
      // A dirty sector was written while the call was under way, and is newer; but not one that
      // the call has a part of, which WriteOrder keeps from being written meanwhile.
      if (isWhole ? !isDirty : Bits.has(block.valid, sector)) {
        frame.write(from, data, at + from - inBlock, to - from);
        Bits.set(block.valid, sector, sector + 1);
      }
    }
  }
}
