package nbd.transmission;

import java.io.IOException;

/**
 * The data of a READ stopped in the middle of its chunk; the chunk was filled up, so that the
 * stream goes on, and the client can be told by an error.
 */
final class CutShortException extends IOException {
  private static final long serialVersionUID = 1;

  private final long sent;

  /**
   * Makes one.
   *
   * @param sent how many bytes are good
   */
  CutShortException(long sent, Throwable cause) {
    super(cause);
    this.sent = sent;
  }

  /** How many bytes are good. */
  long sent() {
    return sent;
  }
}
