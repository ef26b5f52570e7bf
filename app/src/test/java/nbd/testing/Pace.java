package nbd.testing;

import java.util.Random;

/**
 * The number of bytes that one call moves; a small one forces the other side to read and write in
 * parts.
 */
@FunctionalInterface
public interface Pace {
  /** Everything in one call. */
  Pace WHOLE = left -> left;

  /** One byte a call. */
  Pace BYTE_BY_BYTE = left -> 1;

  /** Returns the size of the next piece, from 1 to {@code left}. */
  int next(int left);

  /** Returns a pace of 1 to 40 bytes a call. */
  static Pace random(long seed) {
    Random random = new Random(seed);
    return left -> Math.min(left, 1 + random.nextInt(40));
  }
}
