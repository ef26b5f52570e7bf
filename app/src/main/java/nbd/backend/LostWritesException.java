package nbd.backend;

import nbd.protocol.NbdError;
import nbd.protocol.NbdException;

/**
 * A flush failed since writes that were answered are lost for good, on whichever handle of the
 * export they were made; the handle itself goes on. Who flushes one handle for several connections
 * has to tell all of them, since no later flush fails for it.
 */
public final class LostWritesException extends NbdException {
  private static final long serialVersionUID = 1;

  private final boolean first;

  /**
   * Makes one.
   *
   * @param message for people: what was lost, and why
   * @param first whether no other handle has told of this loss before
   */
  public LostWritesException(String message, boolean first) {
    super(NbdError.EIO, message);
    this.first = first;
  }

  /** Whether no other handle has told of this loss before. */
  public boolean isFirst() {
    return first;
  }
}
