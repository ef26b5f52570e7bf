package nbd.filter;

/** The ways to handle FUA and flushes, as in nbdkit's fua filter. */
public enum FuaMode {
  /** Clients are not offered FUA. */
  NONE,
  /** A command with FUA becomes one without and then a flush, also where the storage has FUA. */
  EMULATE,
  /** As PASS, but clients that write are refused where the storage has neither FUA nor flush. */
  NATIVE,
  /** Every write, trim and zero has FUA, so flushes have nothing to do and are dropped. */
  FORCE,
  /** Clients use the storage's FUA; else the command and then a flush; else they have none. */
  PASS,
  /** FUA and flushes are offered, and dropped: data that clients take for durable is not. */
  DISCARD
}
