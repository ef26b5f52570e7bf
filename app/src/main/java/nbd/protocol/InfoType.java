package nbd.protocol;

import java.util.Arrays;
import java.util.Optional;

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

  public int code() {
    return code;
  }

  /** Finds the type of a number (unsigned 16 bits); empty if the protocol does not define it. */
  public static Optional<InfoType> of(int code) {
    return Arrays.stream(values()).filter(type -> type.code == code).findFirst();
  }
}
