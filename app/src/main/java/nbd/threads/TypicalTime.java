package nbd.threads;

/**
 * How long calls of one kind take, as an average in which the newest count most: for calls that
 * always wait for the disk, a fast one or a slow one.
 *
 * <p>Any thread may call; an update that is lost makes the average a little older.
 */
final class TypicalTime implements CallTimes {
  /**
   * What a request that comes meanwhile may have to wait. Handing a call to another thread costs
   * some 0.03 ms.
   */
  private static final long SHORT_NANOS = 1_000_000;

  /** The newest counts as one of so many. */
  private static final int WEIGHT = 8;

  /** At first nothing is known: a few have to be seen. */
  private volatile long average = 2 * SHORT_NANOS;

  @Override
  public boolean mayBegin(long now) {
    return isShort();
  }

  @Override
  public void ended(long began, long now) {
    took(now - began);
  }

  /** Takes note of a call. */
  void took(long nanos) {
    long before = average;
    average = before + (nanos - before) / WEIGHT;
  }

  /** Whether the next call is expected to be short. */
  boolean isShort() {
    return average < SHORT_NANOS;
  }
}
