package nbd.transmission;

import java.io.IOException;

/**
 * A READ whose data failed while it was sent piece by piece: before the first byte, or in the
 * middle of its chunk. The chunk was filled up with zeroes, so that the client can be sent an
 * error.
 */
final class PartialReadException extends IOException {
  private static final long serialVersionUID = 1;

  private final boolean begun;
  private final long sent;
  private final Throwable reason;

  /**
   * Makes one.
   *
   * @param begun whether a chunk was sent
   * @param sent the bytes of the chunk that are data
   * @param reason the storage's failure
   */
  PartialReadException(boolean begun, long sent, Throwable reason) {
    super(reason);
    this.begun = begun;
    this.sent = sent;
    this.reason = reason;
  }

  boolean begun() {
    return begun;
  }

  long sent() {
    return sent;
  }

  Throwable reason() {
    return reason;
  }
}
