package nbd.storage;

/** What {@link Handle#perform} has done with an operation. */
public enum Outcome {
  /** It has succeeded. */
  DONE,

  /** Nothing has happened: the handle cannot do it with so little patience. */
  DECLINED,

  /** It has begun, and its end will be told; the answer to {@link Patience#LATER} only. */
  BEGUN
}
