package nbd.multiconn;

/** The precision with which the server tracks the connections that need a flush. */
public enum TrackDirty {
  /** For each connection: only the handles that need a flush get one. */
  CONNECTION,
  /** For all together: if any connection has written, all are flushed. */
  FAST,
  /** Not at all: every flush is passed on. */
  OFF;
}
