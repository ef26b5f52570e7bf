package nbd.protocol;

/**
 * The block sizes of an export, in bytes (protocol: "Block size constraints").
 *
 * @param minimum requests are multiples of it: a power of 2 from 1 to 65,536
 * @param preferred requests of it or multiples are served best: a power of 2, at least 512 and at
 *     least the minimum
 * @param maximumPayload the longest payload of a READ or WRITE: at least 1 MiB, and a multiple of
 *     the minimum
 */
public record BlockSizes(int minimum, int preferred, int maximumPayload) {
  /** The sizes of an export whose server sends none: 1, 4096 and 32 MiB. */
  public static final BlockSizes DEFAULT = new BlockSizes(1, 4096, 32 << 20);

  /** Checks the protocol's bounds. */
  public BlockSizes {
    if (Integer.bitCount(minimum) != 1 || minimum < 1 || minimum > 1 << 16) {
      throw new IllegalArgumentException("minimum block size " + minimum);
    }
    if (Integer.bitCount(preferred) != 1 || preferred < Math.max(minimum, 512)) {
      throw new IllegalArgumentException("preferred block size " + preferred);
    }
    if (maximumPayload < 1 << 20 || maximumPayload % minimum != 0) {
      throw new IllegalArgumentException("maximum payload " + maximumPayload);
    }
  }
}
