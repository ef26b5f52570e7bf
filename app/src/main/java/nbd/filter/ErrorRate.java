package nbd.filter;

import nbd.protocol.NbdError;

/**
 * The part of an experiment's operations that fails, and their error.
 *
 * @param rate from 0, never, to 1, always
 */
public record ErrorRate(double rate, NbdError error) {
  public static final ErrorRate NONE = new ErrorRate(0, NbdError.EIO);

  /** Checks the bounds. */
  public ErrorRate {
    if (!(rate >= 0 && rate <= 1)) {
      throw new IllegalArgumentException("error rate " + rate + " is not between 0 and 1");
    }
  }
}
