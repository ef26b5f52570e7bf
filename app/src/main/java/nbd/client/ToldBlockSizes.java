package nbd.client;

import nbd.protocol.BlockSizes;
import nbd.protocol.ProtocolException;

/**
 * The block sizes that a server tells, in bytes, as they are on the wire (unsigned 32 bits).
 *
 * @param minimum requests are multiples of it
 * @param preferred requests of it are served best
 * @param maximum the longest payload; 0xffffffff for any
 */
public record ToldBlockSizes(long minimum, long preferred, long maximum) {
  private static final long NO_MAXIMUM = 0xffff_ffffL;
  private static final long LARGEST_MINIMUM = 1 << 16;
  private static final long LARGEST_PREFERRED = 1 << 25;

  /** Checks what the protocol demands of them, and what can be worked with. */
  static ToldBlockSizes checked(long minimum, long preferred, long maximum)
      throws ProtocolException {
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
          "the block sizes %d, %d and %d are none".formatted(minimum, preferred, maximum));
    }
    return new ToldBlockSizes(minimum, preferred, maximum);
  }

  /** The longest payload that a request may have here: as told, but no more than is usual. */
  int longestPayload() {
    return (int) Math.min(maximum, BlockSizes.DEFAULT.maximumPayload());
  }

  /** What callers have to keep to. The maximum is no concern of theirs: what is longer is split. */
  BlockSizes forCallers() {
    int usual = BlockSizes.DEFAULT.maximumPayload();
    int most = (int) Math.max(1 << 20, Math.min(maximum, usual));
    return new BlockSizes(
        (int) minimum, (int) Math.max(preferred, 512), most - most % (int) minimum);
  }
}
