package nbd.storage;

/** Which calls of a backend's handles may run at the same time; the order is by freedom. */
public enum ThreadModel {
  /** One handle is open at a time. */
  SERIALIZE_CONNECTIONS,
  /** One call at a time on all handles together. */
  SERIALIZE_ALL_REQUESTS,
  /** One call at a time on each handle. */
  SERIALIZE_REQUESTS,
  /** Any number of calls on any handle. */
  PARALLEL;

  /** The one with less freedom. */
  public ThreadModel and(ThreadModel other) {
    return compareTo(other) <= 0 ? this : other;
  }
}
