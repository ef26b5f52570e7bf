package nbd.check;

import java.util.List;

/**
 * An event of a history, as the client sees it: requests before they are sent, replies after they
 * have come. Their order is the order of time.
 */
public sealed interface Event {
  /**
   * The beginning of the history.
   *
   * @param sectors the number of sectors
   * @param isZero whether the first contents are zeroes, else they are not known
   */
  record Start(int sectors, boolean isZero) implements Event {}

  /**
   * A request that is about to be sent.
   *
   * @param operation its number, which no other request of the history has
   * @param connection that makes it
   * @param kind READ, WRITE, ZERO, TRIM or FLUSH
   * @param sector the first
   * @param sectors the length of the range; 0 for a flush
   * @param fua whether a change has the flag FUA
   * @param value of the first sector of a WRITE; each further sector has the next value. No two
   *     writes of the history have a value in common, and none is 0. 0 for other kinds
   */
  record Begin(
      long operation,
      int connection,
      Step.Kind kind,
      int sector,
      int sectors,
      boolean fua,
      long value)
      implements Event {
    /** Says whether its range has a sector. */
    boolean covers(int number) {
      return sector <= number && number < sector + sectors;
    }

    /** Returns the same request without the flag FUA. */
    Begin withoutFua() {
      return new Begin(operation, connection, kind, sector, sectors, false, value);
    }
  }

  /**
   * The reply to a request, or the certainty that none will come.
   *
   * @param operation the request's number
   * @param succeeded whether it was answered without an error
   * @param contents of each sector that a READ returned: one value, or those of a mixture, 0 for
   *     zeroes; empty for other kinds
   */
  record End(long operation, boolean succeeded, List<List<Long>> contents) implements Event {}

  /**
   * The end of a connection. Later requests of its number are made on a new one.
   *
   * @param connection that ends
   * @param cut whether it ended without a disconnect request
   */
  record Close(int connection, boolean cut) implements Event {}

  /** The end of the server without a chance to write anything. Connections end with it. */
  record Crash() implements Event {}
}
