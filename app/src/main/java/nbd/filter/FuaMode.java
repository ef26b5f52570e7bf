package nbd.filter;

/** How FUA and flushes are handled, as in nbdkit's fua filter. */
public enum FuaMode {
  /** Clients are not offered FUA. */
  NONE,
  /** The command, and then a flush, even where the storage has a FUA of its own. */
  EMULATE,
  /** As the storage has it; a client is refused where it can neither do FUA nor flush. */
  NATIVE,
  /** Every write, trim and zero is one with FUA, which leaves nothing for a flush to do. */
  FORCE,
  /** As the storage has it: its own, or the command and then a flush, or none. */
  PASS,
  /** Offered, as flush is, and both are dropped: what clients take for durable is not. */
  DISCARD
}
