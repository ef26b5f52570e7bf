package nbd.protocol;

/** The metadata context {@code base:allocation}: its name, and the bits of an extent's status. */
public final class BaseAllocation {
  /** The context's name. */
  public static final String NAME = "base:allocation";

  /** The query that lists all contexts of the namespace. */
  public static final String WILDCARD = "base:";

  private static final int HOLE = 1;
  private static final int ZERO = 2;

  private BaseAllocation() {}

  /** Encodes the status of an extent. Data, which is 0, is always a safe answer. */
  public static int status(boolean hole, boolean zero) {
    return (hole ? HOLE : 0) | (zero ? ZERO : 0);
  }

  /** Says whether an extent of this status takes no storage. */
  public static boolean isHole(long status) {
    return (status & HOLE) != 0;
  }

  /** Says whether an extent of this status reads as zeroes. */
  public static boolean isZero(long status) {
    return (status & ZERO) != 0;
  }
}
