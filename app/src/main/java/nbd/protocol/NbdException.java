package nbd.protocol;

import java.io.IOException;

/** A command failed with an error that has a number in the protocol. */
public class NbdException extends IOException {
  private static final long serialVersionUID = 1;

  private final NbdError error;

  /**
   * Makes one.
   *
   * @param error what the client is told
   * @param message for people: what failed, on what
   */
  public NbdException(NbdError error, String message) {
    super(message);
    this.error = error;
  }

  /** What the client is told. */
  public NbdError error() {
    return error;
  }

  /** The number for a failure: its own if it has one, else EIO. */
  public static NbdError errorOf(IOException failure) {
    return failure instanceof NbdException known ? known.error : NbdError.EIO;
  }
}
