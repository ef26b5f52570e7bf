package nbd.protocol;

/** The pieces of information on an export ({@code NBD_INFO_*}). */
public enum InfoType {
  /** Size and transmission flags; always sent. */
  EXPORT(0),
  /** The export's canonical name. */
  NAME(1),
  /** A text for people. */
  DESCRIPTION(2),
  /** Minimum and preferred block size, and the maximum payload. */
  BLOCK_SIZE(3);

  private final int code;

  InfoType(int code) {
    this.code = code;
  }

  /** The number on the wire. */
  public int code() {
    return code;
  }
}
