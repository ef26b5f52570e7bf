package nbd.file;

import java.io.IOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The eviction of clients' data from the page cache after its use ({@code --cache-advice=none}). A
 * range that was read is dropped at once, and again some reads later, together with what was read
 * ahead around it. A range that was written is first handed to the disk, and dropped some writes
 * later: a writer waits only if the disk is that far behind.
 *
 * <p>The lock guards the ranges that have not been dropped for good, oldest first. Nobody waits for
 * the disk with it.
 */
final class Eviction {
  private static final int BEHIND = 8;

  /** The page cache drops whole folios only, which are no larger than this and aligned to it. */
  private static final long FOLIO = 2 << 20;

  private record Range(long offset, long length) {}

  private final OpenFile file;
  private final boolean on;
  private final ReentrantLock lock = new ReentrantLock();
  private final ArrayDeque<Range> clean = new ArrayDeque<>();
  private final ArrayDeque<Range> written = new ArrayDeque<>();

  /** Evicts from a file; or does nothing, if it is not on. */
  Eviction(OpenFile file, boolean on) {
    this.file = file;
    this.on = on;
  }

  boolean isOn() {
    return on;
  }

  /** Drops a range that was read, or written through. */
  void noteClean(long offset, long length) throws IOException {
    if (!on) {
      return;
    }
    // Not the pages behind it, which were read ahead and are wanted next.
    long start = offset & -FOLIO;
    file.dropCached(start, offset + length - start);
    Optional<Range> oldest = replace(clean, new Range(offset, length));
    if (oldest.isPresent()) {
      drop(oldest.get());
    }
  }

  /** Begins to write a range that was changed to the disk, and drops an earlier one. */
  void wrote(long offset, long length) throws IOException {
    if (!on) {
      return;
    }
    file.startWriting(offset, length);
    Optional<Range> oldest = replace(written, new Range(offset, length));
    if (oldest.isPresent()) {
      file.finishWriting(oldest.get().offset, oldest.get().length);
      drop(oldest.get());
    }
  }

  /** Adds the newest; removes the oldest if they have become many. */
  private Optional<Range> replace(ArrayDeque<Range> ranges, Range newest) {
    lock.lock();
    try {
      ranges.add(newest);
      return ranges.size() > BEHIND ? Optional.of(ranges.remove()) : Optional.empty();
    } finally {
      lock.unlock();
    }
  }

  /** Drops all ranges that were changed, which a flush has made durable. */
  void flushed() throws IOException {
    List<Range> stored;
    lock.lock();
    try {
      stored = new ArrayList<>(written);
      written.clear();
    } finally {
      lock.unlock();
    }
    for (Range range : stored) {
      drop(range);
    }
  }

  /** Drops the whole file, which nobody uses any more. */
  void end() throws IOException {
    if (on) {
      file.dropCached(0, 0);
    }
  }

  private void drop(Range range) throws IOException {
    long start = range.offset & -FOLIO;
    long end = (range.offset + range.length + FOLIO - 1) & -FOLIO;
    file.dropCached(start, end - start);
  }
}
