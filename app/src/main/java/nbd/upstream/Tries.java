package nbd.upstream;

import java.time.Duration;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.LostException;

/**
 * The breaks that one request has met, and the decision whether it is tried again. Used by one
 * thread at a time.
 *
 * <p>A request that has met two may be what breaks the connection: from then on it is made alone,
 * so that it ends no other one, and with growing pauses, in which the others go on.
 */
final class Tries {
  private static final int SUSPECT = 2;
  private static final Duration FIRST_PAUSE = Duration.ofMillis(10);
  private static final Duration LONGEST_PAUSE = Duration.ofSeconds(1);

  private int breaks;
  private long since;

  /** Set while it has the session for itself; guarded by the session's lock. */
  boolean isAlone;

  /** Says whether it has met a break before. */
  boolean isRepeated() {
    return breaks > 0;
  }

  /** Says whether it may be what breaks connections. */
  boolean isSuspect() {
    return breaks >= SUSPECT;
  }

  /**
   * Takes note of a break.
   *
   * @param changes whether it changes what is stored
   * @param within the time for which it is tried again after its first break
   * @throws NbdException with EIO if it must not be made again, or has been for too long
   */
  void again(LostException broken, boolean changes, Duration within) throws NbdException {
    if (changes && broken.mayStillHappen()) {
      throw failure(
          broken,
          "the server may still make this change, over newer data, so it is not made again");
    }
    long now = System.nanoTime();
    if (breaks == 0) {
      since = now;
    }
    breaks++;
    if (isSuspect() && now - since > within.toNanos()) {
      throw failure(broken, "the connection has broken each of the " + breaks + " times");
    }
  }

  private static NbdException failure(LostException broken, String why) {
    return new NbdException(
        NbdError.EIO,
        broken.getMessage() + "; " + why,
        NbdException.messageForClient(broken) + "; " + why,
        broken);
  }

  /**
   * Gives the time to wait before the next attempt. Every second one is made as soon as the session
   * goes on: after a pause it may meet a connection that broke without it.
   */
  Duration pause() {
    if (!isSuspect() || breaks % 2 != 0) {
      return Duration.ZERO;
    }
    Duration pause = FIRST_PAUSE.multipliedBy(1L << Math.min(breaks / 2, 10));
    return pause.compareTo(LONGEST_PAUSE) < 0 ? pause : LONGEST_PAUSE;
  }
}
