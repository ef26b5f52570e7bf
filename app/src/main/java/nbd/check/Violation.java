package nbd.check;

import java.util.List;
import java.util.Locale;

/**
 * A read that no order of the writes allows.
 *
 * @param level the weakest promise that it breaks
 * @param kind of the violation
 * @param sector the sector's number
 * @param connection that read
 * @param operation the read's number
 * @param values that the sector held: one, or those of a mixture
 * @param allowed values that the read might have returned; 0 is zeroes
 * @param history the events that show it, in order, for people
 * @param requests that show it, in the order in which they began; the read is the last
 */
public record Violation(
    Level level,
    Kind kind,
    int sector,
    int connection,
    long operation,
    List<Long> values,
    List<Long> allowed,
    List<String> history,
    List<Event.Begin> requests) {
  /** A promise to clients with several connections. Each level includes the ones before it. */
  public enum Level {
    /**
     * Flush consistency, which NBD_FLAG_CAN_MULTI_CONN stands for: after a flush or a FUA write has
     * been answered on any connection, all connections read what it covers, or newer data.
     */
    FLUSH,

    /** Coherence: after a write has been answered, all connections read it, or newer data. */
    COHERENT;

    /** Returns the name for programs. */
    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  /** The name of a violation. */
  public enum Kind {
    /** Older data than the promise allows. */
    STALE_READ,

    /**
     * Older data than the promise allows, after the connection of each newer write was closed, or
     * after a crash.
     */
    LOST_WRITE,

    /** Parts of two writes, of which one had replaced the other. */
    SHORN_WRITE,

    /** Writes in an order that contradicts the order in which other reads saw them. */
    UNSERIALIZABLE_WRITES,

    /** Data from before the last but one durable write, after a crash. */
    RESURRECTED_DATA,

    /** Data that nobody wrote, or that belong to another sector. */
    FOREIGN_DATA;

    /** Returns the name for programs and people: "stale read". */
    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT).replace('_', ' ');
    }
  }

  /** Keeps copies. */
  public Violation {
    values = List.copyOf(values);
    allowed = List.copyOf(allowed);
    history = List.copyOf(history);
    requests = List.copyOf(requests);
  }
}
