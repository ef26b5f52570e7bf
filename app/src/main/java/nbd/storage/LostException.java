package nbd.storage;

import nbd.protocol.NbdError;
import nbd.protocol.NbdException;

/**
 * The failure of a handle that is broken for good. Writes that were answered and that no flush
 * covered may be lost. All operations that were running have failed, and all later ones will, with
 * an exception of this kind; the handle can only be closed.
 */
public final class LostException extends NbdException {
  private static final long serialVersionUID = 1;

  private final boolean mayStillHappen;

  /**
   * Makes one for storage that has ended: an operation that was running is done or never will be.
   *
   * @param error the client's: EIO for an operation that was running, ESHUTDOWN for a later one
   * @param message for the log: the storage, and the reason
   */
  public LostException(NbdError error, String message) {
    this(error, message, false);
  }

  /**
   * Makes one.
   *
   * @param mayStillHappen whether the storage may carry out an operation that was running at any
   *     later time, since it was given up here and has not ended
   */
  public LostException(NbdError error, String message, boolean mayStillHappen) {
    super(error, message, "the connection to the storage broke; the server's log says why");
    this.mayStillHappen = mayStillHappen;
  }

  /** Says whether the storage may yet carry out an operation that was running, over newer data. */
  public boolean mayStillHappen() {
    return mayStillHappen;
  }
}
