package nbd.protocol;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/** An option was refused, with a reason that the protocol has a number for. */
public final class OptionException extends IOException {
  private static final long serialVersionUID = 1;

  private final OptionReplyType type;
  private final String told;

  /**
   * Makes one whose whole message the client may read.
   *
   * @param type an error
   * @param message names no path and no URI of this side
   */
  public OptionException(OptionReplyType type, String message) {
    this(type, message, message, null);
  }

  /**
   * Makes one with a message for the log, another one for the client, and perhaps a cause.
   *
   * @param type an error
   * @param told for the client: names no path and no URI of this side
   */
  public OptionException(
      OptionReplyType type, String message, String told, @Nullable Throwable cause) {
    super(message, cause);
    this.told = told;
    if (!type.isError()) {
      throw new IllegalArgumentException(type + " is not an error");
    }
    this.type = type;
  }

  /** The message for a client. */
  String told() {
    return told;
  }

  /** The error. */
  public OptionReplyType type() {
    return type;
  }
}
