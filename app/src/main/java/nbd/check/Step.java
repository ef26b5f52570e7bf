package nbd.check;

import java.util.Locale;

/**
 * An operation of a {@link Script}.
 *
 * @param connection that makes it, numbered from 0
 * @param kind of operation
 * @param sector the first, counted from the script's own first sector; 0 without a range
 * @param sectors the length of the range; 0 for kinds without one
 * @param fua whether a change has the flag FUA
 * @param overlap how many of the next steps are sent before this one's answer is awaited; with 0
 *     the answer is there before the next step is sent
 */
public record Step(int connection, Kind kind, int sector, int sectors, boolean fua, int overlap) {
  /** The kind of an operation. */
  public enum Kind {
    READ,
    WRITE,
    ZERO,
    TRIM,
    FLUSH,
    /** Disconnects in order, and connects again. */
    CLOSE,
    /** Closes the socket without a word, and connects again. */
    CUT,
    /** Restarts the server abruptly, and connects again; the connection's number is 0. */
    RESTART;

    /** Returns the name for people. */
    String words() {
      return switch (this) {
        case CLOSE -> "disconnect, and connect again";
        case CUT -> "close the socket without a disconnect request, and connect again";
        case RESTART -> "kill the server, start it, and connect again";
        default -> name().toLowerCase(Locale.ROOT);
      };
    }

    /** Says whether the operation has a range of sectors. */
    public boolean hasRange() {
      return this == READ || changes();
    }

    /** Says whether the operation changes its sectors. */
    public boolean changes() {
      return this == WRITE || this == ZERO || this == TRIM;
    }
  }

  /** Checks that the parts fit together. */
  public Step {
    if (connection < 0 || sector < 0 || overlap < 0 || (sectors > 0) != kind.hasRange()) {
      throw new IllegalArgumentException(
          "step on connection %d: %s of %d sectors at %d, overlapping %d"
              .formatted(connection, kind, sectors, sector, overlap));
    }
  }

  /** Makes a step on a range that is answered before the next one is sent. */
  public static Step of(int connection, Kind kind, int sector, int sectors) {
    return new Step(connection, kind, sector, sectors, false, 0);
  }

  /** Makes a step without a range that is answered before the next one is sent. */
  public static Step of(int connection, Kind kind) {
    return of(connection, kind, 0, 0);
  }

  /** Returns the same step with the flag FUA. */
  public Step withFua() {
    return new Step(connection, kind, sector, sectors, true, overlap);
  }

  /** Returns the same step that overlaps so many of the next ones. */
  public Step overlapping(int next) {
    return new Step(connection, kind, sector, sectors, fua, next);
  }

  Step onConnection(int number) {
    return new Step(number, kind, sector, sectors, fua, overlap);
  }

  Step onSectors(int first, int count) {
    return new Step(connection, kind, first, count, fua, overlap);
  }

  Step as(Kind other) {
    return new Step(connection, other, sector, sectors, fua, overlap);
  }

  Step withoutFua() {
    return new Step(connection, kind, sector, sectors, false, overlap);
  }
}
