package nbd.protocol;

import java.io.IOException;

/** The peer sent something after which the stream cannot be followed; the connection has to end. */
public final class ProtocolException extends IOException {
  private static final long serialVersionUID = 1;

  /**
   * Makes one.
   *
   * @param message what was wrong, for the log
   */
  public ProtocolException(String message) {
    super(message);
  }
}
