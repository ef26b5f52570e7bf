package nbd.client;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.BitSet;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** Pieces of a read in any order. */
final class CoverageTest {
  @Test
  void piecesInAnyOrderAreComparedWithBits() {
    long seed = Long.getLong("nbd.seed", new Random().nextLong());
    Random random = new Random(seed);
    for (int round = 0; round < 2000; round++) {
      int length = 1 + random.nextInt(40);
      Coverage coverage = new Coverage();
      BitSet bits = new BitSet();
      while (bits.cardinality() < length) {
        int start = random.nextInt(length);
        int end = start + 1 + random.nextInt(Math.min(6, length - start));
        boolean fresh = bits.get(start, end).isEmpty();
        assertThat(coverage.isComplete(length)).as("seed %d", seed).isFalse();
        assertThat(coverage.add(start, end))
            .as("seed %d round %d: %d to %d beside %s", seed, round, start, end, bits)
            .isEqualTo(fresh);
        if (!fresh) {
          break;
        }
        bits.set(start, end);
      }
      assertThat(coverage.isComplete(length))
          .as("seed %d round %d", seed, round)
          .isEqualTo(bits.cardinality() == length);
    }
  }

  @Test
  void aReadOfTooManyEarlyPiecesIsRefused() {
    Coverage coverage = new Coverage();
    long pieces = 0;
    while (coverage.add(2 * pieces + 1, 2 * pieces + 2)) {
      pieces++;
      assertThat(pieces).isLessThan(1 << 20);
    }
    assertThat(pieces).isEqualTo(1 << 16);
  }
}
