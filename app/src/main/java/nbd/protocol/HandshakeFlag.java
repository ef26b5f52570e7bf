package nbd.protocol;

/**
 * The flags of the greeting. The server offers them ({@code NBD_FLAG_*}), and the client answers
 * with the same bits ({@code NBD_FLAG_C_*}).
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

  public int bit() {
    return bit;
  }

  public boolean isIn(int flags) {
    return (flags & bit) != 0;
  }
}
