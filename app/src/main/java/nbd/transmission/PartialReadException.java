package nbd.transmission;

import java.io.IOException;

/**
 * A READ whose data stopped in the middle of its chunk. The chunk was filled up with zeroes, so
 * that the stream goes on, and the client can be sent an error.
 */
final class PartialReadException extends IOException {
  private static final long serialVersionUID = 1;

  private final long sent;
  private final Throwable reason;

  /**
   * Makes one.
   *
   * @param sent the bytes of the chunk that are data
   * @param reason the storage's failure
   */
  PartialReadException(long sent, Throwable reason) {
    super(reason);
    this.sent = sent;
    this.reason = reason;
  }

  long sent() {
    return sent;
  }

  Throwable reason() {
    return reason;
  }
}
