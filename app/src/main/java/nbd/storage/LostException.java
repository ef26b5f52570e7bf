package nbd.storage;

import nbd.protocol.NbdError;
import nbd.protocol.NbdException;

/**
 * A handle is broken for good: what it answered and no flush covered may be lost, every call that
 * was running has failed, and every further one will, with an exception of this kind. It can only
 * be closed.
 */
public final class LostException extends NbdException {
  private static final long serialVersionUID = 1;

  private final boolean mayStillHappen;

  /**
   * Makes one for storage that has ended: what was running is either done or never will be.
   *
   * @param error what the client is told: EIO for a call that was running, ESHUTDOWN for a later
   *     one
   * @param message for the log: what broke, and why
   */
  public LostException(NbdError error, String message) {
    this(error, message, false);
  }

  /**
   * Makes one.
   *
   * @param mayStillHappen whether the storage may carry out what was running at any later time: it
   *     was given up here, and has not ended
   */
  public LostException(NbdError error, String message, boolean mayStillHappen) {
    super(error, message, "the connection to the storage broke; the server's log says why");
    this.mayStillHappen = mayStillHappen;
  }

  /** Whether the storage may carry out later what was running, over newer data. */
  public boolean mayStillHappen() {
    return mayStillHappen;
  }
}
