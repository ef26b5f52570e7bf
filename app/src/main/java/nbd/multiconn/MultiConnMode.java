package nbd.multiconn;

/** What is promised to a client about several connections, and how it is kept. */
public enum MultiConnMode {
  /** Whatever lets several connections be used: the backend's own promise, or an emulated one. */
  AUTO,
  /** Promised, and kept by flushing every connection's handle that needs it. */
  EMULATE,
  /** Not promised; each connection flushes for itself. */
  DISABLE,
  /** Promised if the backend promises it; each connection flushes for itself. */
  PLUGIN,
  /** Promised, and not kept: for experiments. */
  UNSAFE;
}
