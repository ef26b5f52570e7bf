package nbd.check;

import java.util.List;
import java.util.Locale;

/**
 * A fault of a server other than a broken history: something that it advertises and does not do, or
 * a reply that the protocol does not allow.
 *
 * @param severity how much it matters
 * @param kind a stable name, for programs
 * @param sentence a description for people
 * @param steps that show it, in order; may be empty
 */
public record Finding(Severity severity, Kind kind, String sentence, List<String> steps) {
  /** The weight of a finding. */
  public enum Severity {
    /** A promise is broken: data may be lost or wrong, or clients fail. */
    BROKEN,

    /** A recommendation of the protocol is not followed, or a promise is of no use. */
    WARNING,

    /** A peculiarity that is allowed. */
    NOTE;

    /** Returns the name for programs. */
    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  /** The ability or the rule that a finding is about. */
  public enum Kind {
    /** Writes that are durable and visible when they are answered. */
    FUA,
    /** Flushes. */
    FLUSH,
    /** Trims that touch nothing else. */
    TRIM,
    /** Zeroing that reads as zeroes, and touches nothing else. */
    ZERO,
    /** Zeroing that is faster than writing, or refused. */
    FAST_ZERO,
    /** Extents that tell the truth. */
    BLOCK_STATUS,
    /** The size, up to the last byte. */
    SIZE,
    /** The block sizes. */
    BLOCK_SIZE,
    /** The numbers of errors. */
    ERROR_NUMBER,
    /** The form of replies. */
    PROTOCOL,
    /** Reads in one piece (DF). */
    DF,
    /** One extent (REQ_ONE). */
    REQ_ONE,
    /** The information before an export is opened, and its description. */
    INFO,
    /** The list of exports. */
    LIST,
    /** The number of connections. */
    CONNECTIONS;

    /** Returns the name for programs: "fast-zero". */
    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT).replace('_', '-');
    }
  }

  /** Keeps a copy. */
  public Finding {
    steps = List.copyOf(steps);
  }

  /** Makes a finding whose sentence says it all. */
  public Finding(Severity severity, Kind kind, String sentence) {
    this(severity, kind, sentence, List.of());
  }
}
