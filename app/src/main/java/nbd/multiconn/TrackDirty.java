package nbd.multiconn;

/** How precisely the server tracks which connections need a flush. */
public enum TrackDirty {
  /** For each connection: only what needs a flush gets one. */
  CONNECTION,
  /** For all together: if anybody has written, a flush is made for all. */
  FAST,
  /** Not at all: every flush is passed on. */
  OFF;
}
