package nbd.protocol;

import java.io.IOException;

/** An option was refused, with a reason that the protocol has a number for. */
public final class OptionException extends IOException {
  private static final long serialVersionUID = 1;

  private final OptionReplyType type;
  private final String told;

  /**
   * Makes one of which the client may read everything.
   *
   * @param type an error
   * @param message for people: what was refused, and why; names no path and no URI of this side
   */
  public OptionException(OptionReplyType type, String message) {
    this(type, message, message);
  }

  /**
   * Makes one.
   *
   * @param type an error
   * @param message for the log: what was refused, by whom, and why
   * @param told the sentence for a client: names no path and no URI of this side
   */
  public OptionException(OptionReplyType type, String message, String told) {
    super(message);
    this.told = told;
    if (!type.isError()) {
      throw new IllegalArgumentException(type + " is not an error");
    }
    this.type = type;
  }

  /** The sentence for a client. */
  String told() {
    return told;
  }

  /** The error. */
  public OptionReplyType type() {
    return type;
  }
}
