package nbd.threads;

/**
 * The calls of one kind on one file that are made by the caller's own thread, since they are
 * expected to be short: if these calls have been quick lately, and if there is a permit to block a
 * carrier ({@link Carriers}). Any other call is for {@link BlockingCalls#run}.
 *
 * <p>Any thread may call. Between {@link #begin} and {@link #end} it does not wait but in that
 * call.
 */
public final class ShortCalls {
  /** No call has begun. */
  public static final int REFUSED = Carriers.NONE;

  private final Carriers carriers;
  private final CallTimes times;

  ShortCalls(Carriers carriers, CallTimes times) {
    this.carriers = carriers;
    this.times = times;
  }

  /**
   * Begins a call on this thread if that may be. Never waits.
   *
   * @return what {@link #end} wants; or {@link #REFUSED}
   */
  public int begin() {
    long now = System.nanoTime();
    int permit = carriers.enter(now);
    if (permit != REFUSED && !times.mayBegin(now)) {
      carriers.leave(permit);
      return REFUSED;
    }
    return permit;
  }

  /** Ends a call that has begun, however it went. */
  public void end(int begun) {
    times.ended(carriers.leave(begun), System.nanoTime());
  }
}
