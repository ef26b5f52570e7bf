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

  private static final Option[] BY_CODE = new Option[12];

  static {
    for (Option option : values()) {
      BY_CODE[option.code] = option;
    }
  }

  private final int code;

  Option(int code) {
    this.code = code;
  }

  /** The number on the wire. */
  public int code() {
    return code;
  }

  /** The option of a number; empty for a number that the protocol does not define. */
  public static Optional<Option> of(int code) {
    return code > 0 && code < BY_CODE.length ? Optional.of(BY_CODE[code]) : Optional.empty();
  }
}
