package nbd.filter;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.NavigableMap;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.CommandFlags;
import org.jspecify.annotations.Nullable;

/**
 * What the connections to one export have written and not flushed, so that it can be written again
 * when a connection was lost.
 *
 * <p>It is shared by all of them, since what one writes again must not replace what another one has
 * written over it since. A newer write takes older ones out of its range when it begins: if it
 * fails, the range's contents are undefined. Writes to the same range, and the writing again of
 * what is kept there, wait for each other, so that what is kept last is what was written last. A
 * write that begins waits for others, but nobody who writes again waits for a write: what that one
 * touches is not kept any more. So nobody waits in a circle.
 *
 * <p>Invariants, under the lock: pieces do not overlap; none overlaps a range in which a write is
 * going on; each owner's {@code keptBytes} are those of its kept writes of which a piece is left,
 * and its {@code bytes} these and the room that it has taken.
 */
final class KeptWrites {
  /** What a kept zeroing, or any kept write beside its data, counts for. */
  private static final int OVERHEAD = 128;

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final NavigableMap<Long, Piece> pieces = new TreeMap<>();
  private final List<Range> busy = new ArrayList<>();
  private long number;

  /** One connection's share. */
  static final class Owner {
    private final long limit;
    private long bytes;
    private long keptBytes;

    /** May keep so many bytes, or else a single write. */
    Owner(long limit) {
      this.limit = limit;
    }
  }

  /** A range that is being written, from its first byte to the one after its last. */
  record Range(long start, long end) {
    private boolean overlaps(Range other) {
      return start < other.end && other.start < end;
    }
  }

  /** A write that is kept. */
  private static final class Kept {
    private final Owner owner;
    private final long number;
    private final @Nullable ByteBuffer data;
    private final CommandFlags flags;
    private final long bytes;
    private int left = 1;

    Kept(Owner owner, long number, @Nullable ByteBuffer data, CommandFlags flags) {
      this.owner = owner;
      this.number = number;
      this.data = data;
      this.flags = flags;
      this.bytes = cost(data == null ? 0 : data.remaining());
    }
  }

  /** What is left of a kept write in one place. */
  private record Piece(long start, long end, Kept kept, int dataAt) {}

  /**
   * What has to be written again.
   *
   * @param data empty if the range was zeroed
   * @param flags with which it was zeroed
   */
  record Again(Range range, Optional<ByteBuffer> data, CommandFlags flags) {}

  private static long cost(long dataBytes) {
    return dataBytes + OVERHEAD;
  }

  /**
   * Takes room for a write with so many bytes of data. Waits while only writes that are going on
   * have taken it.
   *
   * @return false if the owner has to flush first
   */
  boolean tryTakeRoom(Owner owner, long dataBytes) {
    lock.lock();
    try {
      while (owner.bytes > 0 && owner.bytes + cost(dataBytes) > owner.limit) {
        if (owner.keptBytes > 0) {
          return false;
        }
        changed.awaitUninterruptibly();
      }
      owner.bytes += cost(dataBytes);
      return true;
    } finally {
      lock.unlock();
    }
  }

  /** Gives back room that was taken and not used. */
  void giveRoomBack(Owner owner, long dataBytes) {
    lock.lock();
    try {
      owner.bytes -= cost(dataBytes);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /** A write, zeroing or trim begins: waits until nobody else writes there. */
  Range begin(long offset, long length) {
    Range range = new Range(offset, offset + length);
    lock.lock();
    try {
      while (busy.stream().anyMatch(range::overlaps)) {
        changed.awaitUninterruptibly();
      }
      busy.add(range);
      takeOut(range);
      return range;
    } finally {
      lock.unlock();
    }
  }

  /** It is over, and nothing of it is kept. */
  void end(Range range) {
    lock.lock();
    try {
      busy.remove(range);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /**
   * Keeps a write that has succeeded, in the room that was taken for it; {@link #end} follows.
   *
   * @param data kept as it is; null if the range was zeroed
   */
  void keep(Owner owner, Range range, @Nullable ByteBuffer data, CommandFlags flags) {
    lock.lock();
    try {
      number++;
      Kept kept = new Kept(owner, number, data, flags);
      owner.keptBytes += kept.bytes;
      pieces.put(range.start, new Piece(range.start, range.end, kept, 0));
    } finally {
      lock.unlock();
    }
  }

  /** Up to which write what is kept now goes. */
  long mark() {
    lock.lock();
    try {
      return number;
    } finally {
      lock.unlock();
    }
  }

  /** Drops what an owner had written up to a mark. */
  void drop(Owner owner, long mark) {
    lock.lock();
    try {
      pieces
          .values()
          .removeIf(
              piece -> {
                boolean dropped = piece.kept.owner == owner && piece.kept.number <= mark;
                if (dropped) {
                  release(piece.kept);
                }
                return dropped;
              });
    } finally {
      lock.unlock();
    }
  }

  /**
   * The owner's next kept piece from an offset on, to be written again; nobody else writes there
   * until {@link #end}.
   */
  Optional<Again> beginAgain(Owner owner, long from) {
    lock.lock();
    try {
      for (Piece piece : pieces.tailMap(from, true).values()) {
        if (piece.kept.owner == owner) {
          Range range = new Range(piece.start, piece.end);
          busy.add(range);
          ByteBuffer all = piece.kept.data;
          Optional<ByteBuffer> data =
              all == null
                  ? Optional.empty()
                  : Optional.of(
                      all.slice(all.position() + piece.dataAt, (int) (piece.end - piece.start)));
          return Optional.of(new Again(range, data, piece.kept.flags));
        }
      }
      return Optional.empty();
    } finally {
      lock.unlock();
    }
  }

  private void takeOut(Range range) {
    Long before = pieces.lowerKey(range.start);
    long first = before == null ? range.start : before;
    List<Piece> rest = new ArrayList<>();
    var touched = pieces.subMap(first, true, range.end, false).values().iterator();
    while (touched.hasNext()) {
      Piece piece = touched.next();
      if (piece.end <= range.start) {
        continue;
      }
      touched.remove();
      Kept kept = piece.kept;
      if (piece.start < range.start) {
        kept.left++;
        rest.add(new Piece(piece.start, range.start, kept, piece.dataAt));
      }
      if (piece.end > range.end) {
        kept.left++;
        int skipped = kept.data == null ? 0 : (int) (range.end - piece.start);
        rest.add(new Piece(range.end, piece.end, kept, piece.dataAt + skipped));
      }
      release(kept);
    }
    rest.forEach(piece -> pieces.put(piece.start, piece));
  }

  private static void release(Kept kept) {
    kept.left--;
    if (kept.left == 0) {
      kept.owner.bytes -= kept.bytes;
      kept.owner.keptBytes -= kept.bytes;
    }
  }
}
