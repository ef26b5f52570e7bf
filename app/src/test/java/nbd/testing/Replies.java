package nbd.testing;

/** The form of replies, on which client and server agree in the handshake. */
public enum Replies {
  /** The form that needs no option. */
  SIMPLE(0, 16),
  STRUCTURED(RawClient.STRUCTURED_REPLY, 20),
  EXTENDED(RawClient.EXTENDED_HEADERS, 32);

  private final int option;
  private final int headerBytes;

  Replies(int option, int headerBytes) {
    this.option = option;
    this.headerBytes = headerBytes;
  }

  /** Returns the option that agrees on this form, or 0. */
  public int option() {
    return option;
  }

  int headerBytes() {
    return headerBytes;
  }
}
