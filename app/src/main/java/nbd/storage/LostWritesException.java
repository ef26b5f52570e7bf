package nbd.storage;

import java.util.concurrent.atomic.AtomicLong;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import org.jspecify.annotations.Nullable;

/**
 * A flush reports that writes that were answered are lost for good, on whichever handle of the
 * export they were made. What is there it has made durable, and the handle goes on. Whoever flushes
 * one handle for several connections has to report the loss to all of them, since no later flush
 * fails for it.
 */
public final class LostWritesException extends NbdException {
  private static final long serialVersionUID = 1;

  private static final AtomicLong NUMBERS = new AtomicLong();

  private final long number;

  /** Makes one for a loss that was just found, with a message for the log. */
  public LostWritesException(String message, @Nullable Throwable cause) {
    this(
        NbdError.EIO,
        message,
        "writes that were answered are lost; the server's log says why",
        cause,
        nextNumber());
  }

  LostWritesException(
      NbdError error, String message, String told, @Nullable Throwable cause, long number) {
    super(error, message, told, cause);
    this.number = number;
  }

  /** Copies it for another thread to throw. */
  LostWritesException copy() {
    return new LostWritesException(
        error(), String.valueOf(getMessage()), messageForClient(this), this, number);
  }

  static long nextNumber() {
    return NUMBERS.incrementAndGet();
  }

  /** The loss's number: greater than 0, and than that of any loss of this process before. */
  public long number() {
    return number;
  }
}
