package nbd.storage;

/** The time that {@link Handle#perform} may take its caller. */
public enum Patience {
  /**
   * Perform the operation if it is over sooner than another thread would have begun it, else do
   * nothing. A transfer may wait for the client that it sends to.
   */
  AT_ONCE,

  /** Begin the operation without waiting, and report its end later; for storage far away. */
  LATER,

  /** Perform the operation, however long it takes. */
  WAIT
}
