package nbd.multiconn;

/** The promise to a client about several connections, and the way it is kept. */
public enum MultiConnMode {
  /** Several connections may be used: by the backend's own promise, else by an emulated one. */
  AUTO,
  /** Promised, and kept by flushing every connection's handle that needs it. */
  EMULATE,
  /** Not promised; each connection flushes its own handle. */
  DISABLE,
  /** Promised if the backend promises it; each connection flushes its own handle. */
  PLUGIN,
  /** Promised, and not kept: for experiments. */
  UNSAFE;
}
