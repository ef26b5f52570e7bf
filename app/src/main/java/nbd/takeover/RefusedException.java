package nbd.takeover;

import java.io.IOException;

/** The other server refuses the take-over; the message says why. */
public final class RefusedException extends IOException {
  private static final long serialVersionUID = 1;

  RefusedException(String why) {
    super(why);
  }
}
