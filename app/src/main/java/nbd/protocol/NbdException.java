package nbd.protocol;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/** Thrown if a command failed with one of the protocol's errors. */
public class NbdException extends IOException {
  private static final long serialVersionUID = 1;

  private final NbdError error;
  private final String messageForClient;

  /**
   * Makes one whose whole message the client may read.
   *
   * @param message names no path and no URI of this side
   */
  public NbdException(NbdError error, String message) {
    this(error, message, message);
  }

  /**
   * Makes one with a message for the log and another one for the client.
   *
   * @param messageForClient names no path and no URI of this side
   */
  public NbdException(NbdError error, String message, String messageForClient) {
    this(error, message, messageForClient, null);
  }

  /** Makes one with a message for the log, another one for the client, and a cause. */
  public NbdException(
      NbdError error, String message, String messageForClient, @Nullable Throwable cause) {
    super(message, cause);
    this.error = error;
    this.messageForClient = messageForClient;
  }

  /** Copies a failure that several threads share: each throws an exception of its own. */
  public static NbdException copyOf(IOException shared) {
    return new NbdException(
        errorOf(shared), String.valueOf(shared.getMessage()), messageForClient(shared), shared);
  }

  /** Returns the error for the client. */
  public NbdError error() {
    return error;
  }

  /**
   * Returns the message of a failure for a client. Messages that were not made for clients may name
   * a path or a URI, so that they are only in the log.
   */
  public static String messageForClient(IOException failure) {
    return messageForClient(failure, "the storage failed");
  }

  /**
   * Returns the message of a failure for a client.
   *
   * @param otherwise said of a failure whose message was not made for clients
   */
  public static String messageForClient(IOException failure, String otherwise) {
    return switch (failure) {
      case NbdException known -> known.messageForClient;
      case OptionException refused -> refused.messageForClient();
      default -> otherwise + "; the server's log says why";
    };
  }

  /** Returns the error of a failure: its own if it has one, else EIO. */
  public static NbdError errorOf(IOException failure) {
    return failure instanceof NbdException known ? known.error : NbdError.EIO;
  }
}
