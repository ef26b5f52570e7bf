package nbd.filter;

import nbd.protocol.NbdError;

/**
 * How often a call fails, and with what.
 *
 * @param rate from 0, never, to 1, always
 * @param error what the client is told
 */
public record ErrorRate(double rate, NbdError error) {
  /** Never. */
  public static final ErrorRate NONE = new ErrorRate(0, NbdError.EIO);

  /** Checks the bounds. */
  public ErrorRate {
    if (!(rate >= 0 && rate <= 1)) {
      throw new IllegalArgumentException("error rate " + rate + " is not between 0 and 1");
    }
  }
}
