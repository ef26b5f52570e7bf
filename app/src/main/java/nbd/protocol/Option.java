package nbd.protocol;

import java.util.Optional;

/** The options of the handshake ({@code NBD_OPT_*}). */
public enum Option {
  /** Choose an export and enter transmission; has no error reply. */
  EXPORT_NAME(1),
  /** Leave. */
  ABORT(2),
  /** Name the exports. */
  LIST(3),
  /** Withdrawn from the protocol. */
  PEEK_EXPORT(4),
  /** Continue inside TLS. */
  STARTTLS(5),
  /** Describe an export. */
  INFO(6),
  /** Describe an export and enter transmission. */
  GO(7),
  /** Answer reads in chunks from now on. */
  STRUCTURED_REPLY(8),
  /** Name the metadata contexts of an export. */
  LIST_META_CONTEXT(9),
  /** Choose the metadata contexts of an export. */
  SET_META_CONTEXT(10),
  /** Use 64-bit lengths from now on. */
  EXTENDED_HEADERS(11);

  /** The options by their numbers, which begin with 1. */
  private static final Option[] VALUES = values();

  private final int code;

  Option(int code) {
    this.code = code;
  }

  public int code() {
    return code;
  }

  /** Finds the option of a number; empty if the protocol does not define it. */
  public static Optional<Option> of(int code) {
    return code > 0 && code <= VALUES.length ? Optional.of(VALUES[code - 1]) : Optional.empty();
  }
}
