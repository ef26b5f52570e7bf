package nbd.storage;

/** What a handle does with the flag FUA on a write, trim or zero. */
public enum Fua {
  /** It has none, and flush cannot stand in for it: the flag is never passed. */
  NONE,
  /** It has none, but the call and then a flush have the same effect: the flag is never passed. */
  EMULATE,
  /** It takes the flag: the call returns when this call's data is durable. */
  NATIVE
}
