package nbd.protocol;

/** The errors that a reply can carry, with the protocol's numbers. */
public enum NbdError {
  /** No error. */
  NONE(0),
  /** The export is read-only. */
  EPERM(1),
  /** The storage failed. */
  EIO(5),
  /** Not enough memory. */
  ENOMEM(12),
  /** The request is malformed, misaligned or out of range. */
  EINVAL(22),
  /** No space is left, or a write lies past the end. */
  ENOSPC(28),
  /** The answer does not fit. */
  EOVERFLOW(75),
  /** Not supported, or not fast. */
  ENOTSUP(95),
  /** The server is shutting down. */
  ESHUTDOWN(108);

  private final int code;

  NbdError(int code) {
    this.code = code;
  }

  public int code() {
    return code;
  }

  /** Finds the error of a number: EINVAL for an unknown one, as the protocol asks of clients. */
  public static NbdError of(int code) {
    for (NbdError error : values()) {
      if (error.code == code) {
        return error;
      }
    }
    return EINVAL;
  }
}
