package nbd.protocol;

/**
 * The metadata contexts of qemu's dirty bitmaps: their names, and the bit of an extent's status.
 * See {@code docs/interop/nbd.rst} of qemu.
 */
public final class DirtyBitmap {
  /** The query that lists all contexts of qemu's namespace. */
  public static final String NAMESPACE = "qemu:";

  /** The beginning of each context's name, before the bitmap's; the query that lists them all. */
  public static final String PREFIX = "qemu:dirty-bitmap:";

  private static final int DIRTY = 1;

  private DirtyBitmap() {}

  /** Encodes the status of an extent. */
  public static int status(boolean dirty) {
    return dirty ? DIRTY : 0;
  }
}
