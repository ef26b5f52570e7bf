package nbd.cache;

/**
 * Sets of small numbers, the sectors of a block, as the bits of an array. Ranges end before {@code
 * to}.
 */
final class Bits {
  private Bits() {}

  /** An empty set of numbers below the count. */
  static long[] of(int count) {
    return new long[(count + 63) >>> 6];
  }

  /** The bits of one word that lie in the range. */
  private static long mask(int word, int from, int to) {
    long mask = -1L;
    if (word == from >>> 6) {
      mask &= -1L << from;
    }
    if (word == to >>> 6) {
      mask &= ~(-1L << to);
    }
    return mask;
  }

  private static int words(long[] set, int to) {
    return Math.min(set.length, (to + 63) >>> 6);
  }

  static void set(long[] set, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      set[i] |= mask(i, from, to);
    }
  }

  static void clear(long[] set, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      set[i] &= ~mask(i, from, to);
    }
  }

  static boolean has(long[] set, int number) {
    return (set[number >>> 6] & 1L << number) != 0;
  }

  /** Whether it has all of the range. */
  static boolean all(long[] set, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      if ((~set[i] & mask(i, from, to)) != 0) {
        return false;
      }
    }
    return true;
  }

  /** Whether it has any of the range. */
  static boolean any(long[] set, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      if ((set[i] & mask(i, from, to)) != 0) {
        return true;
      }
    }
    return false;
  }

  static boolean isEmpty(long[] set) {
    for (long word : set) {
      if (word != 0) {
        return false;
      }
    }
    return true;
  }

  /** Adds those of the other set that lie in the range. */
  static void addAll(long[] set, long[] others, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      set[i] |= others[i] & mask(i, from, to);
    }
  }

  /** Takes away those of the range that the other set does not have. */
  static void retainAll(long[] set, long[] others, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      set[i] &= others[i] | ~mask(i, from, to);
    }
  }

  /** How many are in either of the sets. */
  static int countEither(long[] one, long[] other) {
    int count = 0;
    for (int i = 0; i < one.length; i++) {
      count += Long.bitCount(one[i] | other[i]);
    }
    return count;
  }

  /** The first of the range that it has; {@code to} if there is none. */
  static int next(long[] set, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      long found = set[i] & mask(i, from, to);
      if (found != 0) {
        return (i << 6) + Long.numberOfTrailingZeros(found);
      }
    }
    return to;
  }

  /** The first of the range that it does not have; {@code to} if there is none. */
  static int nextMissing(long[] set, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      long found = ~set[i] & mask(i, from, to);
      if (found != 0) {
        return (i << 6) + Long.numberOfTrailingZeros(found);
      }
    }
    return to;
  }

  /** After the last of the range that it does not have; {@code from} if there is none. */
  static int endOfMissing(long[] set, int from, int to) {
    for (int i = words(set, to) - 1; i >= from >>> 6; i--) {
      long found = ~set[i] & mask(i, from, to);
      if (found != 0) {
        return (i << 6) + 64 - Long.numberOfLeadingZeros(found);
      }
    }
    return from;
  }
}
