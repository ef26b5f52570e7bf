package nbd.client;

import java.nio.ByteBuffer;
import nbd.protocol.BlockSizes;
import nbd.protocol.ProtocolException;

/**
 * The block sizes that a server sends, in bytes (unsigned 32 bits).
 *
 * @param minimum requests are multiples of it
 * @param preferred requests of it are served best
 * @param maximum the longest payload; 0xffffffff for any
 */
public record ServerBlockSizes(long minimum, long preferred, long maximum) {
  private static final long NO_MAXIMUM = 0xffff_ffffL;
  private static final long LARGEST_MINIMUM = 1 << 16;
  private static final long LARGEST_PREFERRED = 1 << 25;

  /** Reads the three sizes. Refuses what the protocol forbids, and sizes that cannot be used. */
  static ServerBlockSizes read(ByteBuffer data) throws ProtocolException {
    long minimum = Integer.toUnsignedLong(data.getInt());
    long preferred = Integer.toUnsignedLong(data.getInt());
    long maximum = Integer.toUnsignedLong(data.getInt());
    boolean sane =
        Long.bitCount(minimum) == 1
            && minimum <= LARGEST_MINIMUM
            && Long.bitCount(preferred) == 1
            && preferred >= minimum
            && preferred <= LARGEST_PREFERRED
            && maximum >= minimum
            && (maximum == NO_MAXIMUM || maximum % minimum == 0);
    if (!sane) {
      throw new ProtocolException(
          "the block sizes %d, %d and %d are not valid".formatted(minimum, preferred, maximum));
    }
    return new ServerBlockSizes(minimum, preferred, maximum);
  }

  /** Returns the longest payload of a request to the server, at most the usual one. */
  int longestPayload() {
    return (int) Math.min(maximum, BlockSizes.DEFAULT.maximumPayload());
  }

  /**
   * Returns the sizes that callers have to keep to. The maximum may be larger than the server's:
   * longer requests are split.
   */
  BlockSizes forCallers() {
    int most = Math.max(1 << 20, longestPayload());
    return new BlockSizes(
        (int) minimum, (int) Math.max(preferred, 512), most - most % (int) minimum);
  }
}
