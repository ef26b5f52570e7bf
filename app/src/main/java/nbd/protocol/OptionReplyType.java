package nbd.protocol;

import java.util.Arrays;
import java.util.Optional;

/** The types of replies to an option ({@code NBD_REP_*}). */
public enum OptionReplyType {
  /** The option is done. */
  ACK(1),
  /** One export of a list. */
  SERVER(2),
  /** One piece of information on an export. */
  INFO(3),
  /** One metadata context. */
  META_CONTEXT(4),
  /** The server does not know the option. */
  ERR_UNSUP(0x80000001),
  /** The server's configuration forbids it. */
  ERR_POLICY(0x80000002),
  /** The option's data is malformed. */
  ERR_INVALID(0x80000003),
  /** Not supported on this platform. */
  ERR_PLATFORM(0x80000004),
  /** TLS has to be negotiated first. */
  ERR_TLS_REQD(0x80000005),
  /** There is no such export. */
  ERR_UNKNOWN(0x80000006),
  /** The server is shutting down. */
  ERR_SHUTDOWN(0x80000007),
  /** The client has to ask for the block sizes first. */
  ERR_BLOCK_SIZE_REQD(0x80000008),
  /** The option's data is too large. */
  ERR_TOO_BIG(0x80000009),
  /** Not together with extended headers. */
  ERR_EXT_HEADER_REQD(0x8000000a);

  private final int code;

  OptionReplyType(int code) {
    this.code = code;
  }

  public int code() {
    return code;
  }

  /** Finds the type of a number; empty if the protocol does not define it. */
  public static Optional<OptionReplyType> of(int code) {
    return Arrays.stream(values()).filter(type -> type.code == code).findFirst();
  }

  public boolean isError() {
    return code < 0;
  }
}
