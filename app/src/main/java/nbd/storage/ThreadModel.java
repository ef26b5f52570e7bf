package nbd.storage;

/** The operations of a backend's handles that may run at the same time, least freedom first. */
public enum ThreadModel {
  /** One handle is open at a time. */
  SERIALIZE_CONNECTIONS,
  /** One operation at a time on all handles together. */
  SERIALIZE_ALL_REQUESTS,
  /** One operation at a time on each handle. */
  SERIALIZE_REQUESTS,
  /** Any number of operations on any handle. */
  PARALLEL;

  /** Returns the one with less freedom. */
  public ThreadModel and(ThreadModel other) {
    return compareTo(other) <= 0 ? this : other;
  }
}
