package nbd.protocol;

import java.io.IOException;

/** Thrown if the peer broke the protocol; the connection has to end. */
public final class ProtocolException extends IOException {
  private static final long serialVersionUID = 1;

  /** Makes one with a message for the log. */
  public ProtocolException(String message) {
    super(message);
  }
}
