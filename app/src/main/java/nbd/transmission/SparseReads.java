package nbd.transmission;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.ReplyFormat;
import nbd.storage.Capability;
import nbd.storage.Extent;
import nbd.storage.Handle;

/**
 * Finds the holes in what a READ asks for, so that they need not be sent.
 *
 * <p>Only reads that are long and have to wait for storage anyway are looked at: to ask costs a
 * system call, or a message to another server, which is more than copying some KiB, and would slow
 * down those reads that are answered at once or sent straight from the page cache. Where no holes
 * are found, it is asked less and less: an export without holes pays for one question in {@value
 * #MOST_SKIPPED} reads.
 *
 * <p>Any thread may call; the counters are updated without care, which costs a question more or
 * less.
 */
final class SparseReads {
  /** Longer reads are looked at; the others are cheaper to send. */
  static final int LONGEST_PLAIN_READ = ReplyBatch.LONGEST_READ;

  /** A hole that is shorter is read along: less than another call costs. */
  static final int SHORTEST_HOLE = 1 << 15;

  private static final int MOST_EXTENTS = 64;
  private static final int MOST_SKIPPED = 64;

  private final Handle handle;
  private final boolean possible;
  private volatile int penalty;
  private volatile int toSkip;

  SparseReads(Handle handle, ReplyFormat format) {
    this.handle = handle;
    this.possible = format.hasChunks() && handle.capabilities().has(Capability.EXTENTS);
  }

  /** Whether a read is to be done as it is, without asking for holes. */
  boolean isPlain(int length) {
    return !possible || length <= LONGEST_PLAIN_READ || isSkipped();
  }

  /**
   * Divides a range.
   *
   * @return consecutive parts of the range, all of it: what has to be read, and holes, which need
   *     not; the reply to a read of the range is never longer with them than without
   * @throws IOException if the handle failed
   */
  List<Extent> parts(long offset, int length, CommandFlags flags) throws IOException {
    if (isPlain(length)) {
      return List.of(Extent.data(length));
    }
    boolean whole = flags.has(CommandFlag.DF);
    List<Extent> parts = divide(handle.extents(offset, length, whole ? 1 : MOST_EXTENTS), length);
    boolean found = parts.size() > 1 || parts.getFirst().zero();
    penalty = found ? 0 : Math.min(2 * penalty + 1, MOST_SKIPPED - 1);
    toSkip = penalty;
    return whole && parts.size() > 1 ? List.of(Extent.data(length)) : parts;
  }

  @SuppressWarnings("NonAtomicVolatileUpdate") // an update that is lost costs one question
  private boolean isSkipped() {
    if (toSkip <= 0) {
      return false;
    }
    toSkip--;
    return true;
  }

  private static List<Extent> divide(List<Extent> extents, int length) {
    List<Extent> parts = new ArrayList<>();
    int read = 0;
    int at = 0;
    for (Extent extent : extents) {
      int count = (int) Math.min(extent.length(), length - at);
      at += count;
      if (!extent.zero() || count < SHORTEST_HOLE) {
        read += count;
        continue;
      }
      if (read > 0) {
        parts.add(Extent.data(read));
        read = 0;
      }
      parts.add(Extent.hole(count));
    }
    read += length - at;
    if (read > 0) {
      parts.add(Extent.data(read));
    }
    return parts;
  }
}
