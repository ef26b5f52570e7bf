package nbd.protocol;

/** The metadata context {@code base:allocation}: its name, and the bits of an extent's status. */
public final class BaseAllocation {
  /** The context's name. */
  public static final String NAME = "base:allocation";

  /** What a client lists all contexts of the namespace with. */
  public static final String WILDCARD = "base:";

  private static final int HOLE = 1;
  private static final int ZERO = 2;

  private BaseAllocation() {}

  /** The status of an extent; 0, data, is always safe to say. */
  public static int status(boolean hole, boolean zero) {
    return (hole ? HOLE : 0) | (zero ? ZERO : 0);
  }
}
