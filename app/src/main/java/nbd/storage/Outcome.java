package nbd.storage;

/** The result of {@link Handle#perform}. */
public enum Outcome {
  /** The operation has succeeded. */
  DONE,

  /** Nothing has happened: the handle cannot perform the operation with so little patience. */
  DECLINED,

  /** The operation has begun; its completion will report its end. Only {@link Patience#LATER}. */
  BEGUN
}
