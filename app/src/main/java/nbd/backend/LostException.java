package nbd.backend;

import nbd.protocol.NbdError;
import nbd.protocol.NbdException;

/**
 * A handle is broken for good: what it answered and no flush covered may be lost, every call that
 * was running has failed, and every further one will, with an exception of this kind. It can only
 * be closed.
 */
public final class LostException extends NbdException {
  private static final long serialVersionUID = 1;

  /**
   * Makes one.
   *
   * @param error what the client is told: EIO for a call that was running, ESHUTDOWN for a later
   *     one
   * @param message for people: what broke, and why
   */
  public LostException(NbdError error, String message) {
    super(error, message);
  }
}
