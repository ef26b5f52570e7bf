package nbd.protocol;

import java.io.IOException;

/** A command failed with an error that has a number in the protocol. */
public class NbdException extends IOException {
  private static final long serialVersionUID = 1;

  private final NbdError error;
  private final String told;

  /**
   * Makes one of which the client may read everything.
   *
   * @param error what the client is told
   * @param message for people: what failed; names no path and no URI of this side
   */
  public NbdException(NbdError error, String message) {
    this(error, message, message);
  }

  /**
   * Makes one.
   *
   * @param error what the client is told
   * @param message for the log: what failed, on what
   * @param told the sentence for the client: names no path and no URI of this side
   */
  public NbdException(NbdError error, String message, String told) {
    super(message);
    this.error = error;
    this.told = told;
  }

  /** What the client is told. */
  public NbdError error() {
    return error;
  }

  /**
   * What a client may read of a failure: nothing of one that was not made for it, since a path or a
   * URI may be in its message.
   */
  public static String told(IOException failure) {
    return told(failure, "the storage failed");
  }

  /** As the other, with what to say of a failure that was not made for clients. */
  public static String told(IOException failure, String otherwise) {
    return switch (failure) {
      case NbdException known -> known.told;
      case OptionException refused -> refused.told();
      default -> otherwise + "; the server's log says why";
    };
  }

  /** The number for a failure: its own if it has one, else EIO. */
  public static NbdError errorOf(IOException failure) {
    return failure instanceof NbdException known ? known.error : NbdError.EIO;
  }
}
