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
 * The search for holes in the range of a READ, so that they need not be sent.
 *
 * <p>Only reads that are long and have to wait for storage anyway are worth it: the question costs
 * a system call, or a message to another server, which is more than copying some KiB. While no
 * holes are found the question is asked less and less, down to once in {@value #MOST_SKIPPED}
 * reads.
 *
 * <p>Any thread may call. The counters are updated without care: a lost update costs one question.
 */
final class SparseReads {
  /** Longer reads are looked at; the others are cheaper to send. */
  private static final int LONGEST_PLAIN_READ = ReplyBatch.LONGEST_READ;

  /** A hole that is shorter is read along: less than another call costs. */
  private static final int SHORTEST_HOLE = 1 << 15;

  private static final int MOST_EXTENTS = 64;
  private static final int MOST_SKIPPED = 64;

  private final Handle handle;
  private final boolean possible;

  /** The reads to skip after the next question that finds no hole. */
  private volatile int penalty;

  private volatile int toSkip;

  SparseReads(Handle handle, ReplyFormat format) {
    this.handle = handle;
    this.possible = format.hasChunks() && handle.capabilities().has(Capability.EXTENTS);
  }

  /** Says whether to look for holes in this READ; it counts if not. */
  @SuppressWarnings("NonAtomicVolatileUpdate") // a lost update costs one question
  boolean asks(int length) {
    if (!possible || length <= LONGEST_PLAIN_READ) {
      return false;
    }
    if (toSkip <= 0) {
      return true;
    }
    toSkip--;
    return false;
  }

  /**
   * Divides a range into data, which has to be read, and holes. The reply to a READ of the range is
   * never longer with the holes than without.
   *
   * @throws IOException if the handle failed
   */
  List<Extent> parts(long offset, int length, CommandFlags flags) throws IOException {
    boolean whole = flags.has(CommandFlag.DF);
    List<Extent> parts = new ArrayList<>();
    int left = length;
    for (Extent extent : handle.extents(offset, length, whole ? 1 : MOST_EXTENTS)) {
      if (left == 0) {
        break;
      }
      int count = (int) Math.min(extent.length(), left);
      boolean hole = extent.zero() && count >= SHORTEST_HOLE;
      (hole ? Extent.hole(count) : Extent.data(count)).appendTo(parts);
      left -= count;
    }
    if (left > 0) {
      Extent.data(left).appendTo(parts);
    }
    boolean found = parts.size() > 1 || parts.getFirst().zero();
    penalty = found ? 0 : Math.min(2 * penalty + 1, MOST_SKIPPED - 1);
    toSkip = penalty;
    return whole && parts.size() > 1 ? List.of(Extent.data(length)) : parts;
  }
}
