package nbd.backend;

import java.io.IOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Keeps what clients read and write from filling the page cache ({@code --cache-advice=none}). What
 * was read is dropped at once. What was written is first handed to the disk, and dropped some
 * writes later, when the disk has had the time for it: a writer waits only if the disk is that far
 * behind.
 *
 * <p>Under the lock: the ranges that have been written, and not dropped since, oldest first. Nobody
 * waits for the disk with it.
 */
final class Eviction {
  private static final int BEHIND = 8;

  /** The page cache drops whole folios only, which are no larger than this and aligned to it. */
  private static final long FOLIO = 2 << 20;

  private record Range(long offset, long length) {}

  private final OpenFile file;
  private final ReentrantLock lock = new ReentrantLock();
  private final ArrayDeque<Range> written = new ArrayDeque<>();

  Eviction(OpenFile file) {
    this.file = file;
  }

  /**
   * A range was read, or written through. What was read ahead behind it stays: it is wanted next.
   */
  void isClean(long offset, long length) throws IOException {
    drop(new Range(offset, length));
  }

  /** A range was written. */
  void wrote(long offset, long length) throws IOException {
    file.startWriting(offset, length);
    Range oldest = null;
    lock.lock();
    try {
      written.add(new Range(offset, length));
      if (written.size() > BEHIND) {
        oldest = written.poll();
      }
    } finally {
      lock.unlock();
    }
    if (oldest != null) {
      file.finishWriting(oldest.offset, oldest.length);
      drop(oldest);
    }
  }

  /** All that was written before is on the disk. */
  void flushed() throws IOException {
    List<Range> clean;
    lock.lock();
    try {
      clean = new ArrayList<>(written);
      written.clear();
    } finally {
      lock.unlock();
    }
    for (Range range : clean) {
      drop(range);
    }
  }

  /** Nobody uses the file any more. */
  void end() throws IOException {
    file.dropCached(0, 0);
  }

  private void drop(Range range) throws IOException {
    long start = range.offset & -FOLIO;
    long end = (range.offset + range.length + 4095) & -4096;
    file.dropCached(start, end - start);
  }
}
