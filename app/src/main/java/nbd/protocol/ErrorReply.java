package nbd.protocol;

import java.io.IOException;

/**
 * Why a command failed, as the client is told.
 *
 * @param error the number
 * @param message a sentence for people, which only chunks can carry
 */
public record ErrorReply(NbdError error, String message) {
  /** No error. */
  public static final ErrorReply NONE = new ErrorReply(NbdError.NONE, "");

  /** Makes the message one line. */
  public ErrorReply {
    message = Printable.line(message);
  }

  /** What a client is told of a failure. */
  public static ErrorReply of(IOException failure) {
    return new ErrorReply(NbdException.errorOf(failure), NbdException.told(failure));
  }

  /** Whether it is one. */
  public boolean isError() {
    return error != NbdError.NONE;
  }
}
