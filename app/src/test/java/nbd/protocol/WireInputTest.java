package nbd.protocol;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.ByteArrayInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.ReadableByteChannel;
import java.util.Arrays;
import java.util.Random;
import nbd.testing.Bytes;
import nbd.testing.Pace;
import nbd.testing.ThirteenBytes;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Reading ahead from a stream that arrives in pieces. */
@Timeout(300)
final class WireInputTest {
  private static final int CAPACITY = 64;

  /** Any mixture of calls gets all bytes in order. */
  @RepeatedTest(200)
  void bytesComeInOrderHoweverTheyArriveAndAreTaken() throws IOException {
    long seed = Long.getLong("nbd.seed", new Random().nextLong());
    Random random = new Random(seed);
    byte[] stream = Bytes.random(seed, random.nextInt(3000));
    ReadableByteChannel channel =
        random.nextBoolean()
            ? new ThirteenBytes(Pace.random(seed), stream)
            : Channels.newChannel(new ByteArrayInputStream(stream));
    WireInput in = new WireInput(channel, CAPACITY, CAPACITY + random.nextInt(5 * CAPACITY));
    int taken = 0;
    while (taken < stream.length) {
      int left = stream.length - taken;
      int count = Math.min(left, random.nextInt(CAPACITY + 1));
      String what = "seed %d at %d".formatted(seed, taken);
      switch (random.nextInt(4)) {
        case 0 -> {
          assertThat(in.fill(count)).as(what).isTrue();
          assertThat(in.buffered()).as(what).isGreaterThanOrEqualTo(count);
          byte[] piece = new byte[count];
          in.buffer().get(piece);
          assertThat(piece).as(what).isEqualTo(Arrays.copyOfRange(stream, taken, taken + count));
        }
        case 1 -> {
          count = Math.min(left, random.nextInt(5 * CAPACITY));
          ByteBuffer into = ByteBuffer.allocate(count + 10).position(5).limit(5 + count);
          in.readFully(into);
          assertThat(into.remaining()).isZero();
          assertThat(Arrays.copyOfRange(into.array(), 5, 5 + count))
              .as(what)
              .isEqualTo(Arrays.copyOfRange(stream, taken, taken + count));
        }
        case 2 -> {
          count = Math.min(left, random.nextInt(5 * CAPACITY));
          in.skip(count);
        }
        default -> {
          in.require(count);
          count = 0;
        }
      }
      taken += count;
    }
    assertThat(in.fill(1)).as("seed %d: the end", seed).isFalse();
  }

  @Test
  void theBufferGrowsWhileReadsFillIt() throws IOException {
    byte[] stream = Bytes.random(1, 1000);
    ReadableByteChannel channel = Channels.newChannel(new ByteArrayInputStream(stream));
    WireInput in = new WireInput(channel, CAPACITY, 3 * CAPACITY);
    int taken = 0;
    for (int capacity : new int[] {CAPACITY, 2 * CAPACITY, 3 * CAPACITY, 3 * CAPACITY}) {
      in.require(1);
      assertThat(in.capacity()).isEqualTo(capacity);
      byte[] piece = new byte[in.buffered()];
      in.buffer().get(piece);
      assertThat(piece).isEqualTo(Arrays.copyOfRange(stream, taken, taken + capacity));
      taken += capacity;
    }
  }

  @Test
  void theEndInTheMiddleOfAMessageIsAnError() throws IOException {
    WireInput in = new WireInput(new ThirteenBytes(new byte[20]), CAPACITY);
    assertThat(in.fill(21)).isFalse();
    assertThat(in.buffered()).isEqualTo(20);
    assertThatThrownBy(() -> in.require(21)).isInstanceOf(EOFException.class);
    assertThatThrownBy(() -> in.readFully(ByteBuffer.allocate(21)))
        .isInstanceOf(EOFException.class);
  }

  @Test
  void skippingPastTheEndIsAnError() {
    WireInput in = new WireInput(new ThirteenBytes(new byte[20]), CAPACITY);
    assertThatThrownBy(() -> in.skip(21)).isInstanceOf(EOFException.class);
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 13, 63, 64})
  void thePieceMayBeAsLongAsTheBuffer(int count) throws IOException {
    WireInput in = new WireInput(new ThirteenBytes(Bytes.random(1, 200)), CAPACITY);
    in.skip(100);
    assertThat(in.fill(count)).isTrue();
    assertThat(in.capacity()).isEqualTo(CAPACITY);
  }
}
