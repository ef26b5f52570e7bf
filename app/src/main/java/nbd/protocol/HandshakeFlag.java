package nbd.protocol;

/**
 * The flags of the greeting. Server and client use the same bits: the server offers ({@code
 * NBD_FLAG_*}), the client takes ({@code NBD_FLAG_C_*}).
 */
public enum HandshakeFlag {
  /** Options get replies. */
  FIXED_NEWSTYLE(1),
  /** EXPORT_NAME is answered without the 124 zero bytes. */
  NO_ZEROES(2);

  /** Every bit that the protocol defines. */
  public static final int ALL = 3;

  private final int bit;

  HandshakeFlag(int bit) {
    this.bit = bit;
  }

  /** The bit on the wire. */
  public int bit() {
    return bit;
  }

  /** Whether this flag is set in what a client sent. */
  public boolean isIn(int flags) {
    return (flags & bit) != 0;
  }
}
