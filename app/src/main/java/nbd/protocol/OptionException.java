package nbd.protocol;

import java.io.IOException;

/** An option was refused, with a reason that the protocol has a number for. */
public final class OptionException extends IOException {
  private static final long serialVersionUID = 1;

  private final OptionReplyType type;

  /**
   * Makes one.
   *
   * @param type an error
   * @param message for people: what was refused, and why
   */
  public OptionException(OptionReplyType type, String message) {
    super(message);
    if (!type.isError()) {
      throw new IllegalArgumentException(type + " is not an error");
    }
    this.type = type;
  }

  /** The error. */
  public OptionReplyType type() {
    return type;
  }
}
