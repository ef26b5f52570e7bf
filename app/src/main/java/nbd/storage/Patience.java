package nbd.storage;

/** The time that {@link Handle#perform} may take its caller. */
public enum Patience {
  /**
   * Perform the operation if it is over sooner than another thread would have begun it, else do
   * nothing. A transfer may wait for the client that it sends to. A WRITE with FUA may wait for
   * storage that has been quick lately; so the caller asks for FUA at once only while its client
   * waits for nothing else.
   */
  AT_ONCE,

  /** Begin the operation without waiting, and report its end later; for storage far away. */
  LATER,

  /** Perform the operation, however long it takes. */
  WAIT
}
