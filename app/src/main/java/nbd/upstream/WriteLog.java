package nbd.upstream;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.NavigableMap;
import java.util.TreeMap;
import nbd.protocol.CommandFlags;
import org.jspecify.annotations.Nullable;

/**
 * What was written to an export, by whichever connection, was answered, and is covered by no flush
 * yet: so that it can be written again when the server crashed. Bytes that were written more than
 * once count as the last answer left them.
 *
 * <p>An answered write takes its range out of the older ones, since it is kept itself until a flush
 * that started later has succeeded; one that was made durable at once (FUA) takes it out and is not
 * kept. A write that failed, or was not answered, takes nothing out: what was answered before it is
 * still what the client may rely on.
 *
 * <p>Guarded by the session's lock. Invariants: pieces do not overlap; {@code bytes} is what the
 * kept writes count for of which a piece is left, and what has been reserved.
 */
final class WriteLog {
  /** What any write counts for, beside its data. */
  private static final int OVERHEAD = 128;

  private final long limit;
  private final NavigableMap<Long, Piece> pieces = new TreeMap<>();
  private long bytes;
  private long number;

  /** How a change is made again. */
  enum Kind {
    WRITE,
    ZERO,
    TRIM
  }

  /** An answered write, zeroing or trim. */
  private static final class Kept {
    private final long number;
    private final Kind kind;
    private final @Nullable ByteBuffer data;
    private final CommandFlags flags;
    private final long cost;
    private int left = 1;

    Kept(long number, Kind kind, @Nullable ByteBuffer data, CommandFlags flags) {
      this.number = number;
      this.kind = kind;
      this.data = data;
      this.flags = flags;
      this.cost = cost(data == null ? 0 : data.remaining());
    }
  }

  /** What is left of one in one place. */
  private record Piece(long start, long end, Kept kept, int dataAt) {
    Entry entry() {
      ByteBuffer data = kept.data;
      return new Entry(
          kept.kind,
          start,
          end - start,
          data == null
              ? ByteBuffer.allocate(0)
              : data.slice(data.position() + dataAt, (int) (end - start)),
          kept.flags);
    }
  }

  /** What has to be done again; the data is empty but for a write. */
  record Entry(Kind kind, long offset, long length, ByteBuffer data, CommandFlags flags) {}

  /**
   * Begins empty.
   *
   * @param limit how many bytes it may hold, or else a single write
   */
  WriteLog(long limit) {
    this.limit = limit;
  }

  private static long cost(long dataBytes) {
    return dataBytes + OVERHEAD;
  }

  /** Takes room for a write that begins; false if a flush has to make some first. */
  boolean tryReserve(long dataBytes) {
    if (bytes > 0 && bytes + cost(dataBytes) > limit) {
      return false;
    }
    bytes += cost(dataBytes);
    return true;
  }

  /** Gives room back that was taken and is not used. */
  void unreserve(long dataBytes) {
    bytes -= cost(dataBytes);
  }

  /**
   * A write was answered; it is kept in the room that was taken for it.
   *
   * @param data kept as it is; null for a zeroing or trim
   * @param flags to make it again with
   */
  void add(Kind kind, long offset, long length, @Nullable ByteBuffer data, CommandFlags flags) {
    takeOut(offset, offset + length);
    number++;
    Kept kept = new Kept(number, kind, data, flags);
    pieces.put(offset, new Piece(offset, offset + length, kept, 0));
  }

  /** A range has become durable by itself: nothing older in it is at risk. */
  void addDurable(long offset, long length) {
    takeOut(offset, offset + length);
  }

  private void takeOut(long start, long end) {
    Long before = pieces.lowerKey(start);
    long first = before == null ? start : before;
    List<Piece> rest = new ArrayList<>();
    var touched = pieces.subMap(first, true, end, false).values().iterator();
    while (touched.hasNext()) {
      Piece piece = touched.next();
      if (piece.end <= start) {
        continue;
      }
      touched.remove();
      Kept kept = piece.kept;
      if (piece.start < start) {
        kept.left++;
        rest.add(new Piece(piece.start, start, kept, piece.dataAt));
      }
      if (piece.end > end) {
        kept.left++;
        int skipped = kept.data == null ? 0 : (int) (end - piece.start);
        rest.add(new Piece(end, piece.end, kept, piece.dataAt + skipped));
      }
      release(kept);
    }
    rest.forEach(piece -> pieces.put(piece.start, piece));
  }

  private void release(Kept kept) {
    kept.left--;
    if (kept.left == 0) {
      bytes -= kept.cost;
    }
  }

  /** Up to which answer it goes now. */
  long mark() {
    return number;
  }

  /** A flush that started at this mark has succeeded. */
  void drop(long mark) {
    pieces
        .values()
        .removeIf(
            piece -> {
              boolean covered = piece.kept.number <= mark;
              if (covered) {
                release(piece.kept);
              }
              return covered;
            });
  }

  /** Whether nothing is at risk, and no write has taken room. */
  boolean isUnused() {
    return bytes == 0;
  }

  /** Whether nothing is at risk. */
  boolean isEmpty() {
    return pieces.isEmpty();
  }

  /** What has to be done again, in the order of the answers. */
  List<Entry> entries() {
    return pieces.values().stream()
        .sorted(Comparator.comparingLong(piece -> piece.kept.number))
        .map(Piece::entry)
        .toList();
  }

  /** What is at risk, for people; of what was zeroed or trimmed it counts the range. */
  String describe() {
    long writes = pieces.values().stream().map(Piece::kept).distinct().count();
    long covered = pieces.values().stream().mapToLong(piece -> piece.end - piece.start).sum();
    return writes + (writes == 1 ? " write" : " writes") + " (" + covered + " bytes)";
  }
}
