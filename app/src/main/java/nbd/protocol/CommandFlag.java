package nbd.protocol;

/** The flags of a command ({@code NBD_CMD_FLAG_*}). */
public enum CommandFlag {
  /** Force unit access: answer when this command's data is durable. */
  FUA(0),
  /** WRITE_ZEROES must not make a hole. */
  NO_HOLE(1),
  /** Answer the READ in one piece. */
  DF(2),
  /** BLOCK_STATUS with one extent. */
  REQ_ONE(3),
  /** WRITE_ZEROES only if that is faster than writing. */
  FAST_ZERO(4),
  /** The length is that of the payload. */
  PAYLOAD_LEN(5);

  private final int bit;

  CommandFlag(int position) {
    this.bit = 1 << position;
  }

  public int bit() {
    return bit;
  }
}
