package nbd.cache;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import nbd.cache.Block.Watch;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The reading of data from the storage. A read of missing sectors is a fetch: it reads neighbouring
 * blocks together, other reads of the same block wait for it, and its data fills only sectors that
 * are still missing when it comes back, and have not changed at the storage since it went. So it
 * never replaces what a client wrote in the meantime.
 */
final class Reading {
  /** The bytes that are read by one call at most, but for larger blocks. */
  private static final int RUN = 1 << 20;

  private final ExportCache cache;
  private final Grid grid;

  Reading(ExportCache cache) {
    this.cache = cache;
    this.grid = cache.grid;
  }

  /** A block of a fetch: the sectors from the first that is missing to the last. */
  private record Part(Block block, Watch watch, int from, int to) {}

  /** The answer of a fetch to whether it can bring a block. */
  private enum Plan {
    ADDED,
    NOT_NEEDED,
    OTHERS_FETCH,
    NO_FRAME,
    NOT_ADJACENT
  }

  /**
   * Reads data that is not all cached.
   *
   * @param into filled from its position to its limit
   */
  void read(ByteBuffer into, long offset, long lastUsed) throws IOException {
    long end = offset + into.remaining();
    long at = offset;
    long used = lastUsed;
    while (at < end) {
      long number = grid.blockOf(at);
      int inBlock = grid.inBlock(at);
      int count = grid.inFirstBlock(at, end - at);
      if (cache.index.readHit(number, inBlock, count, into, number != used)) {
        at += count;
        used = number;
        continue;
      }
      Fetch run = new Fetch(number, inBlock, count, grid.blockOf(end - 1), into);
      boolean fetched = run.fetch();
      // A client may have written it meanwhile, though the storage failed.
      boolean isThere = at < end - into.remaining();
      if (!fetched && !isThere) {
        readAround(number, inBlock, count, into);
      }
      at = end - into.remaining();
      used = number;
    }
  }

  /**
   * Brings a part of a block into the cache, if there is room for it.
   *
   * @return whether it may be there now
   */
  boolean load(long number, int inBlock, int count) {
    return new Fetch(number, inBlock, count, number, null).fetch();
  }

  /** Brings blocks into the cache, as far as there is room for them. */
  void loadAhead(long first, long last) {
    long number = first;
    while (number <= last) {
      Fetch run = new Fetch(number, 0, grid.bytesOf(number), last, null);
      if (!run.fetch()) {
        return;
      }
      number = Math.max(run.next, number + 1);
    }
  }

  /** One fetch, from its planning to its end. */
  private final class Fetch {
    private final long first;
    private final int inFirst;
    private final int count;
    private final long last;
    private final @Nullable ByteBuffer into;
    private final CompletableFuture<Void> ended = new CompletableFuture<>();
    private final List<Part> parts = new ArrayList<>();

    /** The end of another fetch that brings what is wanted. */
    private @Nullable CompletableFuture<Void> other;

    /** The block after the last one that is cached or being brought. */
    private long next;

    private @Nullable Frame spare;

    /**
     * Plans a fetch.
     *
     * @param first the block whose part is wanted
     * @param last the last block that it may bring
     * @param into gets the wanted part of the first block when that is there
     */
    Fetch(long first, int inFirst, int count, long last, @Nullable ByteBuffer into) {
      this.first = first;
      this.inFirst = inFirst;
      this.count = count;
      this.last = last;
      this.into = into;
      this.next = first;
    }

    /**
     * Brings the blocks, or waits for another fetch that does.
     *
     * @return false if the storage failed, or no memory is free
     */
    boolean fetch() {
      int most = Math.max(1, Math.min(RUN / grid.blockSize(), cache.frames.dirtyBackgroundLimit()));
      Plan plan = Plan.ADDED;
      while (plan == Plan.ADDED && next <= last && parts.size() < most) {
        plan = plan(next);
        if (plan == Plan.NO_FRAME) {
          spare = cache.frames.take();
          plan = spare == null ? Plan.NO_FRAME : plan(next);
        }
        if (plan == Plan.ADDED || (plan == Plan.NOT_NEEDED && parts.isEmpty())) {
          next++;
        }
      }
      if (spare != null) {
        cache.frames.giveBack(spare);
      }
      if (!parts.isEmpty()) {
        return bring();
      }
      if (other != null) {
        other.join();
        next++;
      }
      return plan != Plan.NO_FRAME;
    }

    private Plan plan(long number) {
      Stripe stripe = cache.index.stripe(number);
      stripe.lock.lock();
      try {
        Block block = stripe.get(number);
        int sectors = grid.sectorsOf(number);
        if (block != null && block.isValid(wantedFrom(number), wantedTo(number, sectors))) {
          return Plan.NOT_NEEDED;
        }
        if (block != null && block.fetch != null) {
          other = block.fetch;
          return Plan.OTHERS_FETCH;
        }
        int from = block == null ? 0 : Bits.nextMissing(block.valid, 0, sectors);
        if (!parts.isEmpty() && (from > 0 || parts.getLast().to < grid.sectorsPerBlock())) {
          return Plan.NOT_ADJACENT;
        }
        if (block == null || block.frame == null) {
          if (spare == null) {
            return Plan.NO_FRAME;
          }
          block = cache.index.getOrAdd(number);
          cache.frames.give(block, spare);
          spare = null;
        }
        Watch watch = new Watch(grid.sectorsPerBlock(), true);
        block.watch(watch);
        block.fetch = ended;
        parts.add(new Part(block, watch, from, Bits.endOfMissing(block.valid, from, sectors)));
        return Plan.ADDED;
      } finally {
        stripe.lock.unlock();
      }
    }

    private int wantedFrom(long number) {
      return number == first ? grid.sector(inFirst) : 0;
    }

    private int wantedTo(long number, int sectors) {
      return number == first ? grid.endSector(inFirst + count) : sectors;
    }

    private boolean bring() {
      long start = start(parts.getFirst());
      Part lastPart = parts.getLast();
      long end =
          Math.min(
              grid.size(),
              grid.start(lastPart.block.number) + ((long) lastPart.to << grid.sectorShift()));
      @Nullable ByteBuffer brought = null;
      try {
        ByteBuffer whole = cache.takeBuffer((int) (end - start));
        readPieces(whole, start);
        brought = whole;
      } catch (IOException failure) {
        // A client's own read past the cache gets its failure.
        Logger.debug(failure);
      } finally {
        for (Part part : parts) {
          end(part, brought, start);
        }
        if (brought != null) {
          cache.giveBack(brought);
        }
        ended.complete(null);
      }
      return brought != null;
    }

    private long start(Part part) {
      return grid.start(part.block.number) + ((long) part.from << grid.sectorShift());
    }

    private void end(Part part, @Nullable ByteBuffer brought, long start) {
      Block block = part.block;
      Stripe stripe = cache.index.stripe(block.number);
      stripe.lock.lock();
      try {
        if (brought != null) {
          fill(part, brought, (int) (start(part) - start));
        }
        block.fetch = null;
        block.unwatch(part.watch);
        Frame frame = block.frame;
        if (into != null
            && frame != null
            && block.number == first
            && block.isValid(wantedFrom(first), wantedTo(first, 0))) {
          // Now: it may be evicted before the caller looks for it.
          frame.read(inFirst, into, count);
        }
      } finally {
        stripe.lock.unlock();
      }
    }

    private void fill(Part part, ByteBuffer brought, int at) {
      Block block = part.block;
      Frame frame = block.frame;
      // Sectors that have changed since, or are there already.
      long[] kept = part.watch.changed;
      Bits.addAll(kept, block.valid, part.from, part.to);
      int from = Bits.nextMissing(kept, part.from, part.to);
      while (frame != null && from < part.to) {
        int to = Bits.next(kept, from, part.to);
        int inBlock = from << grid.sectorShift();
        int length = Math.min(to << grid.sectorShift(), grid.bytesOf(block.number)) - inBlock;
        frame.write(inBlock, brought, at + ((from - part.from) << grid.sectorShift()), length);
        Bits.set(block.valid, from, to);
        from = Bits.nextMissing(kept, to, part.to);
      }
    }
  }

  /**
   * Reads past the cache, since there is no room in it, or the whole block could not be read. What
   * is cached is newer all the same.
   */
  private void readAround(long number, int inBlock, int count, ByteBuffer into) throws IOException {
    Stripe stripe = cache.index.stripe(number);
    int start = into.position();
    boolean complete = false;
    while (!complete) {
      Watch watch = new Watch(grid.sectorsPerBlock(), false);
      Block block;
      stripe.lock.lock();
      try {
        block = cache.index.getOrAdd(number);
        block.watch(watch);
      } finally {
        stripe.lock.unlock();
      }
      boolean succeeded = false;
      try {
        ByteBuffer part = into.duplicate().position(start).limit(start + count);
        cache.storage.run(handle -> handle.read(part, grid.start(number) + inBlock));
        succeeded = true;
      } finally {
        stripe.lock.lock();
        try {
          complete = succeeded && overlay(block, watch, inBlock, count, into, start);
          block.unwatch(watch);
          cache.index.tidy(block);
        } finally {
          stripe.lock.unlock();
        }
      }
    }
    into.position(start + count);
  }

  /** Puts cached sectors over the data; false if others of it are too old. */
  private boolean overlay(
      Block block, Watch watch, int inBlock, int count, ByteBuffer into, int start) {
    int shift = grid.sectorShift();
    for (int sector = grid.sector(inBlock); sector < grid.endSector(inBlock + count); sector++) {
      Frame frame = block.frame;
      if (frame != null && Bits.has(block.valid, sector)) {
        int from = Math.max(inBlock, sector << shift);
        int to = Math.min(inBlock + count, (sector + 1) << shift);
        frame.read(from, into.duplicate().position(start + from - inBlock), to - from);
      } else if (Bits.has(watch.changed, sector)) {
        return false;
      }
    }
    block.seen(grid.sector(inBlock), grid.endSector(inBlock + count));
    return true;
  }

  /** Reads data in pieces that the storage takes. */
  private void readPieces(ByteBuffer into, long offset) throws IOException {
    int most = cache.mostPayload();
    int end = into.limit();
    for (int at = 0; at < end; at += most) {
      ByteBuffer piece = into.duplicate().position(at).limit(Math.min(end, at + most));
      long from = offset + at;
      cache.storage.run(handle -> handle.read(piece, from));
    }
  }
}
