package nbd.protocol;

import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;

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

  /** The commands by their numbers. They are made once, so that a request allocates nothing. */
  private static final List<Optional<Command>> BY_CODE =
      Stream.of(values()).map(Optional::of).toList();

  private final int code;

  Command(int code) {
    this.code = code;
  }

  public int code() {
    return code;
  }

  /** Says whether the command changes the export's contents. */
  public boolean writes() {
    return this == WRITE || this == TRIM || this == WRITE_ZEROES;
  }

  /** Finds the command of a number (unsigned 16 bits); empty if the protocol does not define it. */
  public static Optional<Command> of(int code) {
    return code < BY_CODE.size() ? BY_CODE.get(code) : Optional.empty();
  }
}
