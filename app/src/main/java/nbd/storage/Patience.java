package nbd.storage;

/** How long {@link Handle#perform} may keep its caller. */
public enum Patience {
  /**
   * Do it on this thread if that is expected to need no waiting worth another thread, else nothing.
   * A READ may wait for the client that it sends to; a command with FUA may wait for storage that
   * has been quick lately, which the caller therefore asks for only while it has nothing else to
   * do.
   */
  AT_ONCE,

  /** Begin it without waiting, and tell its end later; for storage that is far away. */
  LATER,

  /** Do it, however long it takes. */
  WAIT
}
