package nbd.protocol;

import java.util.Optional;

/** The commands of the transmission phase ({@code NBD_CMD_*}). */
public enum Command {
  /** Read a range. */
  READ(0),
  /** Write a range; the data follows the request. */
  WRITE(1),
  /** Disconnect; has no reply. */
  DISC(2),
  /** Make answered writes durable. */
  FLUSH(3),
  /** Forget a range. */
  TRIM(4),
  /** Read ahead. */
  CACHE(5),
  /** Make a range read as zeroes. */
  WRITE_ZEROES(6),
  /** Describe the extents of a range. */
  BLOCK_STATUS(7),
  /** Change the size (experimental). */
  RESIZE(8);

  private static final Command[] VALUES = values();

  @SuppressWarnings({"unchecked", "rawtypes"})
  private static final Optional<Command>[] BY_CODE = new Optional[VALUES.length];

  static {
    for (Command command : VALUES) {
      BY_CODE[command.code] = Optional.of(command);
    }
  }

  private final int code;

  Command(int code) {
    this.code = code;
  }

  /** The number on the wire. */
  public int code() {
    return code;
  }

  /** Whether it changes the export's contents. */
  public boolean writes() {
    return this == WRITE || this == TRIM || this == WRITE_ZEROES;
  }

  /** The command of a number (unsigned 16 bits); empty for one that the protocol lacks. */
  public static Optional<Command> of(int code) {
    return code < VALUES.length ? BY_CODE[code] : Optional.empty();
  }
}
