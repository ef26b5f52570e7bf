package nbd.cache;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.Losses;
import nbd.storage.LostWritesException;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/** One client's handle on the cache of its export. */
final class CacheHandle extends Handle {
  private final ExportCache cache;
  private final Grid grid;
  private final Runnable afterClose;
  private final ReadAhead readAhead;

  /** The losses that were reported to this client. */
  private final Losses.Position reported;

  /** The block that was read last: to go on in it is not a new use of it. A hint. */
  private long lastUsed = -1;

  CacheHandle(ExportCache cache, boolean readOnly, Runnable afterClose) {
    super(facts(cache, readOnly));
    this.cache = cache;
    this.grid = cache.grid;
    this.afterClose = afterClose;
    this.reported = cache.losses.join();
    this.readAhead = new ReadAhead(cache);
  }

  private static ExportFacts facts(ExportCache cache, boolean readOnly) {
    Capabilities shown = shown(cache.mode, cache.below());
    return new ExportFacts(
        cache.facts().size(),
        cache.facts().blockSizes(),
        readOnly ? shown.readOnly() : shown,
        cache.facts().description(),
        CacheHandle.class,
        cache.facts().dirtyBitmap());
  }

  /**
   * Gives the capabilities. All clients share one cache, which reaches the storage through one
   * handle. A cache that answers before the storage keeps multi-conn whatever the storage says: a
   * flush writes back what any client wrote, and one flush of that handle covers it. A writethrough
   * cache passes the storage's own word on; a flush of the one handle covers all clients there too,
   * but whether they may rely on that, multi-conn's modes decide.
   */
  static Capabilities shown(CacheMode mode, Capabilities below) {
    Capabilities shown = below.with(Capability.CACHE);
    return mode == CacheMode.WRITETHROUGH
        ? shown
        : shown.with(Capability.MULTI_CONN, Capability.FLUSH, Capability.FUA);
  }

  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    return switch (patience) {
      case AT_ONCE -> performNow(operation) ? Outcome.DONE : Outcome.DECLINED;
      case LATER -> Outcome.DECLINED;
      case WAIT -> {
        perform(operation);
        yield Outcome.DONE;
      }
    };
  }

  private boolean performNow(Operation operation) {
    return switch (operation.command()) {
      case READ -> !operation.isTransfer() && readNow(operation.data(), operation.offset());
      case WRITE ->
          operation.flags().equals(CommandFlags.NONE)
              && cache.writing.writeNow(operation.data(), operation.offset());
      default -> false;
    };
  }

  private void perform(Operation operation) throws IOException {
    long offset = operation.offset();
    long length = operation.length();
    switch (operation.command()) {
      case READ -> readWaiting(operation.data(), offset);
      case WRITE -> cache.writing.write(operation.data(), offset, operation.flags());
      case FLUSH -> flushCache(operation.fua());
      case TRIM -> trimSectors(operation);
      case WRITE_ZEROES -> zeroSectors(operation);
      case CACHE -> loadAhead(offset, length);
      case BLOCK_STATUS -> answerStatus(operation);
      default -> throw new AssertionError(operation.command());
    }
  }

  private void readWaiting(ByteBuffer into, long offset) throws IOException {
    int length = into.remaining();
    if (!readNow(into, offset)) {
      cache.statistics.misses.increment();
      cache.reading.read(into, offset, lastUsed);
      used(offset, length);
    }
  }

  /** Reads if all is cached; if not, the position is where it was. */
  private boolean readNow(ByteBuffer into, long offset) {
    int start = into.position();
    int length = into.remaining();
    long end = offset + length;
    long at = offset;
    while (at < end) {
      long number = grid.blockOf(at);
      int inBlock = grid.inBlock(at);
      int count = grid.inFirstBlock(at, end - at);
      if (!cache.index.readHit(number, inBlock, count, into, number != lastUsed)) {
        into.position(start);
        return false;
      }
      at += count;
    }
    used(offset, length);
    cache.statistics.hits.increment();
    return true;
  }

  private void used(long offset, int length) {
    long last = grid.blockOf(offset + length - 1);
    lastUsed = last;
    readAhead.sees(grid.blockOf(offset), last);
  }

  private void flushCache(boolean forFua) throws IOException {
    switch (cache.mode) {
      case WRITEBACK -> cache.flush();
      case WRITETHROUGH -> cache.flushThrough();
      case UNSAFE -> {
        return;
      }
    }
    List<LostWritesException> news = cache.losses.report(reported, forFua);
    if (!news.isEmpty()) {
      throw news.getFirst();
    }
  }

  /** Trims whole sectors; the contents of the parts at the ends may stay as they are. */
  private void trimSectors(Operation operation) throws IOException {
    long start = grid.alignedUp(operation.offset());
    long end = grid.alignedDown(operation.offset() + operation.length());
    if (start < end) {
      clear(operation, start, end);
    }
  }

  /** Zeroes whole sectors, and then writes the parts at the ends: zeroing may be refused. */
  private void zeroSectors(Operation operation) throws IOException {
    long offset = operation.offset();
    long length = operation.length();
    long start = grid.alignedUp(offset);
    long end = grid.alignedDown(offset + length);
    if (start >= end) {
      writeZeroes(operation, offset, offset + length);
      return;
    }
    clear(operation, start, end);
    writeZeroes(operation, offset, start);
    writeZeroes(operation, end, offset + length);
  }

  private void writeZeroes(Operation operation, long start, long end) throws IOException {
    if (start < end) {
      CommandFlags flags = operation.fua() ? CommandFlags.of(CommandFlag.FUA) : CommandFlags.NONE;
      cache.writing.write(ByteBuffer.allocate((int) (end - start)), start, flags);
    }
  }

  private void clear(Operation operation, long start, long end) throws IOException {
    boolean passesFua = cache.writing.passesFua();
    CommandFlags flags = operation.flags();
    Operation cleared =
        Operation.onRange(
            operation.command(),
            start,
            end - start,
            passesFua ? flags : flags.without(CommandFlag.FUA));
    Handle changed = cache.writing.clear(start, end, cleared);
    if (cache.mode == CacheMode.WRITEBACK && !passesFua && operation.fua()) {
      cache.flushGiven(changed);
    }
  }

  /** Brings no more than there is room for: the rest would push out what has just been brought. */
  private void loadAhead(long offset, long length) {
    long first = grid.blockOf(offset);
    long last = grid.blockOf(offset + length - 1);
    cache.reading.loadAhead(first, Math.min(last, first + cache.frames.capacity() - 1));
  }

  /** The storage answers for its dirty bitmap, which nothing that is written here changes. */
  private void answerStatus(Operation question) throws IOException {
    if (question.asksForDirty()) {
      cache.storage.run(handle -> handle.run(question));
    } else {
      question.answer(extentsOf(question.offset(), question.length(), question.most()));
    }
  }

  /**
   * Gives the storage's extents, overlaid with the cache's. Dirty sectors are data; they are looked
   * for first, since they may be written back meanwhile. So are sectors that are being changed, of
   * which a read may still give the old content; they are looked for last, since the change may
   * begin meanwhile. The storage's word on what is behind the range is not passed on: the cache was
   * not asked there.
   */
  private List<Extent> extentsOf(long offset, long length, int most) throws IOException {
    List<ByteRange> dirty = cache.index.dirtyRanges(offset, offset + length, most);
    // Behind as many dirty ranges as are wanted there may be more, so nothing is said of that.
    long end =
        dirty.size() < most ? offset + length : Math.min(offset + length, dirty.getLast().end());
    List<Extent> below = new ArrayList<>();
    cache.storage.run(handle -> below.addAll(handle.extents(offset, end - offset, most)));
    List<Extent> found = overlaid(below, dirty, offset, end);
    found = overlaid(found, cache.order.changing(offset, end), offset, end);
    return found.size() > most ? List.copyOf(found.subList(0, most)) : found;
  }

  /**
   * Gives the extents up to the end, with the ranges as data.
   *
   * @param ranges in the order of their starts
   */
  private static List<Extent> overlaid(
      List<Extent> below, List<ByteRange> ranges, long offset, long end) {
    List<Extent> found = new ArrayList<>();
    int next = 0;
    long at = offset;
    for (Extent extent : below) {
      long extentEnd = Math.min(end, at + extent.length());
      while (at < extentEnd) {
        while (next < ranges.size() && ranges.get(next).end() <= at) {
          next++;
        }
        ByteRange range = next < ranges.size() ? ranges.get(next) : new ByteRange(end, end);
        boolean inside = range.start() <= at;
        long length = Math.min(inside ? range.end() : range.start(), extentEnd) - at;
        Extent part =
            inside ? Extent.data(length) : new Extent(length, extent.hole(), extent.zero());
        part.appendTo(found);
        at += length;
      }
    }
    return found;
  }

  /** Leaves dirty sectors in the cache, to be written back. */
  @Override
  public void close() {
    afterClose.run();
  }
}
