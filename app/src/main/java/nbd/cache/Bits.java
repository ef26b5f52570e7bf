package nbd.cache;

/**
 * Sets of small numbers, the sectors of a block, as the bits of an array. Ranges end before {@code
 * to}.
 */
final class Bits {
  private Bits() {}

  /** Makes an empty set of numbers below the count. */
  static long[] of(int count) {
    return new long[(count + 63) >>> 6];
  }

  /** Gives the bits of one word that lie in the range. */
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

  /** Says whether the set has all of the range. */
  static boolean all(long[] set, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      if ((~set[i] & mask(i, from, to)) != 0) {
        return false;
      }
    }
    return true;
  }

  /** Says whether the set has any of the range. */
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

  /** Adds those numbers of the other set that lie in the range. */
  static void addAll(long[] set, long[] others, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      set[i] |= others[i] & mask(i, from, to);
    }
  }

  /** Takes away those numbers of the range that the other set lacks. */
  static void retainAll(long[] set, long[] others, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      set[i] &= others[i] | ~mask(i, from, to);
    }
  }

  /** Counts the numbers that are in either of the sets. */
  static int countEither(long[] one, long[] other) {
    int count = 0;
    for (int i = 0; i < one.length; i++) {
      count += Long.bitCount(one[i] | other[i]);
    }
    return count;
  }

  /** Finds the first number of the range that the set has; {@code to} if there is none. */
  static int next(long[] set, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      long found = set[i] & mask(i, from, to);
      if (found != 0) {
        return (i << 6) + Long.numberOfTrailingZeros(found);
      }
    }
    return to;
  }

  /** Finds the first number of the range that the set lacks; {@code to} if there is none. */
  static int nextMissing(long[] set, int from, int to) {
    for (int i = from >>> 6; i < words(set, to); i++) {
      long found = ~set[i] & mask(i, from, to);
      if (found != 0) {
        return (i << 6) + Long.numberOfTrailingZeros(found);
      }
    }
    return to;
  }

  /** Finds the end of the last number of the range that the set lacks; {@code from} if none. */
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
