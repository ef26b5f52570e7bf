package nbd.testing;

import java.util.Random;

/**
 * The bytes that a client gives to one call; few force the other side to read and write in parts.
 */
@FunctionalInterface
public interface Pace {
  /** Everything by one call. */
  Pace WHOLE = left -> left;

  /** One byte a call. */
  Pace BYTE_BY_BYTE = left -> 1;

  /** The size of the next piece, from 1 to {@code left}. */
  int next(int left);

  /** Pieces of 1 to 40 bytes. */
  static Pace random(long seed) {
    Random random = new Random(seed);
    return left -> Math.min(left, 1 + random.nextInt(40));
  }
}
