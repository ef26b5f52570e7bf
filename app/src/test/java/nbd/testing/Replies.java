package nbd.testing;

/** The form of replies, on which client and server agree in the handshake. */
public enum Replies {
  /** Without an option. */
  SIMPLE(0, 16),
  STRUCTURED(RawClient.STRUCTURED_REPLY, 20),
  EXTENDED(RawClient.EXTENDED_HEADERS, 32);

  private final int option;
  private final int headerBytes;

  Replies(int option, int headerBytes) {
    this.option = option;
    this.headerBytes = headerBytes;
  }

  /** The option that agrees on it. */
  public int option() {
    return option;
  }

  int headerBytes() {
    return headerBytes;
  }
}
