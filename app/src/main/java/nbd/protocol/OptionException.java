package nbd.protocol;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/** Thrown if an option was refused with one of the protocol's errors. */
public final class OptionException extends IOException {
  private static final long serialVersionUID = 1;

  private final OptionReplyType type;
  private final String messageForClient;

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
   * @param messageForClient names no path and no URI of this side
   */
  public OptionException(
      OptionReplyType type, String message, String messageForClient, @Nullable Throwable cause) {
    super(message, cause);
    this.messageForClient = messageForClient;
    if (!type.isError()) {
      throw new IllegalArgumentException(type + " is not an error");
    }
    this.type = type;
  }

  /** Copies a failure to open an export, for another thread to throw. */
  public static IOException copyOf(IOException shared) {
    return shared instanceof OptionException refused
        ? new OptionException(
            refused.type, String.valueOf(refused.getMessage()), refused.messageForClient, refused)
        : NbdException.copyOf(shared);
  }

  /** Returns the message for the client. */
  String messageForClient() {
    return messageForClient;
  }

  public OptionReplyType type() {
    return type;
  }
}
