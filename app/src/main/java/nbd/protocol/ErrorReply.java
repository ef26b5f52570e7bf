package nbd.protocol;

import java.io.IOException;

/**
 * The reply to a command that failed.
 *
 * @param message a sentence for people, which only chunks can carry
 */
public record ErrorReply(NbdError error, String message) {
  /** No error. */
  public static final ErrorReply NONE = new ErrorReply(NbdError.NONE, "");

  /** Makes the message one line. */
  public ErrorReply {
    message = Printable.line(message);
  }

  /** Makes the reply for a failure. */
  public static ErrorReply of(IOException failure) {
    return new ErrorReply(NbdException.errorOf(failure), NbdException.messageForClient(failure));
  }

  public boolean isError() {
    return error != NbdError.NONE;
  }
}
