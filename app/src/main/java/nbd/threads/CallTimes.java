package nbd.threads;

/** What is known of how long calls of one kind on one file take. Any thread may call. */
interface CallTimes {
  /**
   * Whether a call that begins now is expected to be short; if so, it does begin.
   *
   * @param now in {@link System#nanoTime}'s count
   */
  boolean mayBegin(long now);

  /**
   * Takes note of a call's end.
   *
   * @param began when it was said that it may begin
   */
  void ended(long began, long now);
}
