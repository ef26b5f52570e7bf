package nbd.upstream;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.NavigableMap;
import java.util.TreeMap;
import nbd.protocol.Command;
import nbd.storage.Operation;

/**
 * The writes, zeroings and trims of an export that were answered and that no flush covers yet, on
 * whichever connection: so that they can be made again when the server has crashed. Of bytes that
 * were written more than once it keeps what the last answer left.
 *
 * <p>An answered write takes its range out of the older ones, since it is kept itself until a flush
 * that started later has succeeded; one that was made durable at once (FUA) takes it out and is not
 * kept. A write that failed, or was not answered, takes nothing out: what was answered before it is
 * still what the client may rely on.
 *
 * <p>Guarded by the session's lock. Invariants: pieces do not overlap; {@code bytes} is the cost of
 * the kept writes of which a piece is left, and of the reserved ones.
 */
final class WriteLog {
  /** The cost of any write, beside its data. */
  private static final int OVERHEAD = 128;

  private final long limit;
  private final NavigableMap<Long, Piece> pieces = new TreeMap<>();
  private long bytes;
  private long number;

  /** An answered operation, of which so many pieces are left. */
  private static final class Kept {
    private final long number;
    private final Operation operation;
    private int left = 1;

    Kept(long number, Operation operation) {
      this.number = number;
      this.operation = operation;
    }
  }

  /** A part of a kept operation that is left. */
  private record Piece(long start, long end, Kept kept) {
    Operation operation() {
      Operation whole = kept.operation;
      int length = (int) (end - start);
      return whole.command() == Command.WRITE
          ? Operation.write(
              whole.data().slice((int) (start - whole.offset()), length), start, whole.flags())
          : Operation.onRange(whole.command(), start, end - start, whole.flags());
    }
  }

  /**
   * Begins empty.
   *
   * @param limit how many bytes it may hold, or else a single write
   */
  WriteLog(long limit) {
    this.limit = limit;
  }

  private static long cost(Operation operation) {
    return OVERHEAD + (operation.command() == Command.WRITE ? operation.length() : 0);
  }

  /** Takes room for an operation that begins; false if a flush has to make some first. */
  boolean tryReserve(Operation operation) {
    if (bytes > 0 && bytes + cost(operation) > limit) {
      return false;
    }
    bytes += cost(operation);
    return true;
  }

  /** Gives room back that was taken and is not used. */
  void unreserve(Operation operation) {
    bytes -= cost(operation);
  }

  /**
   * Keeps an operation that was answered, in the room that was taken for it.
   *
   * @param operation to be made again; its data begins at index 0, and belongs to the log
   */
  void add(Operation operation) {
    takeOut(operation);
    number++;
    long start = operation.offset();
    pieces.put(start, new Piece(start, start + operation.length(), new Kept(number, operation)));
  }

  /** Lets go of all that is older in the range of an operation. */
  void takeOut(Operation newer) {
    long start = newer.offset();
    long end = start + newer.length();
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
        rest.add(new Piece(piece.start, start, kept));
      }
      if (piece.end > end) {
        kept.left++;
        rest.add(new Piece(end, piece.end, kept));
      }
      release(kept);
    }
    rest.forEach(piece -> pieces.put(piece.start, piece));
  }

  private void release(Kept kept) {
    kept.left--;
    if (kept.left == 0) {
      bytes -= cost(kept.operation);
    }
  }

  /** Returns the number of the last answer that it has kept. */
  long mark() {
    return number;
  }

  /** Lets go of what was answered up to this mark: a flush that started then has succeeded. */
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

  /** Says whether nothing is at risk, and no write has taken room. */
  boolean isUnused() {
    return bytes == 0;
  }

  /** Says whether nothing is at risk. */
  boolean isEmpty() {
    return pieces.isEmpty();
  }

  /** Gives the operations that have to be made again, in the order of their answers. */
  List<Operation> operations() {
    return pieces.values().stream()
        .sorted(Comparator.comparingLong(piece -> piece.kept.number))
        .map(Piece::operation)
        .toList();
  }

  /** Says what is at risk, for people; of what was zeroed or trimmed it counts the range. */
  String describe() {
    long writes = pieces.values().stream().map(Piece::kept).distinct().count();
    long covered = pieces.values().stream().mapToLong(piece -> piece.end - piece.start).sum();
    return writes + (writes == 1 ? " write" : " writes") + " (" + covered + " bytes)";
  }
}
