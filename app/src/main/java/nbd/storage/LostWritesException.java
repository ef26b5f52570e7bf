package nbd.storage;

import java.util.concurrent.atomic.AtomicLong;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;

/**
 * A flush failed since writes that were answered are lost for good, on whichever handle of the
 * export they were made; the handle itself goes on. Who flushes one handle for several connections
 * has to tell all of them, since no later flush fails for it.
 */
public final class LostWritesException extends NbdException {
  private static final long serialVersionUID = 1;

  private static final AtomicLong NUMBERS = new AtomicLong();

  private final long number;

  /**
   * Makes one.
   *
   * @param message for the log: what was lost, and why
   * @param number which loss it is, whatever handle tells of it: greater than 0, and higher than
   *     that of any loss of this process before
   */
  public LostWritesException(String message, long number) {
    super(NbdError.EIO, message, "writes that were answered are lost; the server's log says why");
    this.number = number;
  }

  /** A number for a loss that was just found: higher than that of any before. */
  public static long nextNumber() {
    return NUMBERS.incrementAndGet();
  }

  /** Which loss it is: the same from every handle, and higher than that of one before. */
  public long number() {
    return number;
  }
}
