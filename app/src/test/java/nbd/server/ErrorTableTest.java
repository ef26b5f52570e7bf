package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import nbd.memory.NullBackend;
import nbd.protocol.BlockSizes;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The protocol's table of errors, every case of it: commands by lengths by offsets, by flags, on
 * exports that are read-only, aligned, or can do little. After each the next request parses.
 */
@Timeout(120)
final class ErrorTableTest {
  private static final long MAXIMUM = 32 << 20;
  private static final long SIZE = 2 * MAXIMUM;
  private static final long[] LENGTHS = {0, 1, 2, MAXIMUM, MAXIMUM + 1, 0xffffffffL};
  private static final long[] OFFSETS = {
    0, 1, SIZE - 1, SIZE, SIZE + 1, Long.MAX_VALUE, Long.MIN_VALUE, -SIZE, -1
  };
  private static final long DRAINED = 128 << 20;

  /** The protocol's words, in its own order of words: what is wrong decides, not the server. */
  private static int expected(int command, long offset, long length) {
    boolean payload = command == RawClient.READ || command == RawClient.WRITE;
    boolean past = Long.compareUnsigned(offset, SIZE) > 0 || length > SIZE - offset;
    return switch (command) {
      case RawClient.BLOCK_STATUS -> RawClient.EINVAL;
      case RawClient.FLUSH -> offset == 0 && length == 0 ? 0 : RawClient.EINVAL;
      default -> {
        if (payload && length > MAXIMUM) {
          yield RawClient.EINVAL;
        }
        boolean grows = command == RawClient.WRITE || command == RawClient.WRITE_ZEROES;
        yield !past ? 0 : grows ? RawClient.ENOSPC : RawClient.EINVAL;
      }
    };
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 3, 4, 5, 6, 7})
  void everyLengthAtEveryOffset(int command) throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(SIZE));
        RawClient client = server.client()) {
      for (long length : LENGTHS) {
        if (command == RawClient.WRITE && length > DRAINED) {
          continue;
        }
        byte[] payload = new byte[command == RawClient.WRITE ? (int) length : 0];
        for (long offset : OFFSETS) {
          int error = expected(command, offset, length);
          client.request(0, command, length ^ offset, offset, length, payload);
          client.expectReply(error, length ^ offset);
          if (command == RawClient.READ && error == 0) {
            client.take((int) length);
          }
        }
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {DRAINED + 1, 0x7fffffffL, 0x80000000L, 0xffffffffL})
  void aWriteOfMoreThan128MebibytesEndsTheConnection(long length) throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(SIZE));
        RawClient client = server.client()) {
      client.request(0, RawClient.WRITE, 1, 0, length).expectEnd();
    }
  }

  @Test
  void aWriteOf128MebibytesIsDrainedAndTheNextRequestParses() throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(SIZE));
        RawClient client = server.client()) {
      client.request(0, RawClient.WRITE, 1, 0, DRAINED);
      byte[] piece = new byte[1 << 20];
      for (int i = 0; i < 128; i++) {
        client.send(piece);
      }
      client.expectReply(RawClient.EINVAL, 1).write(0, piece).disconnect();
    }
  }

  /** Where offset and length together are more than 2^63. */
  @Test
  void theLargestExportHasAnEnd() throws IOException {
    long size = Long.MAX_VALUE - 511;
    try (TestServer server = TestServer.of(new NullBackend(size));
        RawClient client = server.client()) {
      for (long offset : new long[] {size - 1, size, size + 1, Long.MAX_VALUE}) {
        for (long length : new long[] {2, MAXIMUM, 0xffffffffL}) {
          client.call(RawClient.EINVAL, 0, RawClient.TRIM, offset, length);
          client.call(RawClient.ENOSPC, 0, RawClient.WRITE_ZEROES, offset, length);
          client.call(RawClient.EINVAL, 0, RawClient.CACHE, offset, length);
        }
        client.call(RawClient.EINVAL, 0, RawClient.READ, offset, 2);
      }
      client.read(size - 1, 1);
      client.call(0, 0, RawClient.TRIM, size - 0xffffffffL, 0xffffffffL).disconnect();
    }
  }

  @Test
  void everyFlagOfEveryCommand() throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(SIZE));
        RawClient client = server.client()) {
      for (int command : new int[] {0, 1, 3, 4, 5, 6, 7, 8}) {
        for (int bit = 0; bit < 16; bit++) {
          for (int flags : new int[] {1 << bit, 1 << bit | RawClient.FUA, 1 << bit | 2}) {
            int allowed = command == RawClient.WRITE_ZEROES ? 0x13 : command < 7 ? 1 : 0;
            boolean good = (flags & ~allowed) == 0 && command < 7;
            int length = command == RawClient.FLUSH ? 0 : 1;
            byte[] payload = new byte[command == RawClient.WRITE ? 1 : 0];
            client.call(good ? 0 : RawClient.EINVAL, flags, command, 0, length, payload);
            if (command == RawClient.READ && good) {
              client.take(1);
            }
          }
        }
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {8, 9, 10, 255, 256, 257, 0x7fff, 0x8000, 0xffff})
  void anUnknownCommandIsInvalid(int command) throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(SIZE));
        RawClient client = server.client()) {
      for (int flags : new int[] {0, 1, 0xffff}) {
        client.call(RawClient.EINVAL, flags, command, 0, 512).read(0, 1);
      }
      client.disconnect();
    }
  }

  @Test
  void aReadOnlyExportPermitsNoWriting() throws IOException {
    try (TestServer server = TestServer.with(new NullBackend(SIZE)).readOnly().start();
        RawClient client = server.connect()) {
      assertThat(client.enter("").has(1)).as("READ_ONLY").isTrue();
      for (int length : new int[] {0, 1, 100_000, (int) MAXIMUM, (int) MAXIMUM + 1}) {
        client.call(RawClient.EPERM, 0, RawClient.WRITE, 0, length, new byte[length]);
        client.call(RawClient.EPERM, RawClient.FUA, RawClient.TRIM, 0, length);
        client.call(RawClient.EPERM, RawClient.NO_HOLE, RawClient.WRITE_ZEROES, 0, length);
      }
      client.flush().read(SIZE - 10, 10);
      client.disconnect();
    }
  }

  @Test
  void whatTheStorageCannotIsInvalid() throws IOException {
    Capabilities little = Capabilities.of(Capability.WRITE);
    FakeBackend fake = new FakeBackend(4096, BlockSizes.DEFAULT, little);
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      for (int command : new int[] {3, 4, 5, 6, 7}) {
        client.call(RawClient.EINVAL, 0, command, 0, command == RawClient.FLUSH ? 0 : 512);
      }
      client.call(RawClient.EINVAL, RawClient.FUA, RawClient.WRITE, 0, 3, new byte[3]);
      client.call(RawClient.EINVAL, RawClient.FUA, RawClient.READ, 0, 3);
      client.write(0, new byte[3]).read(0, 3);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {2, 512, 4096, 65_536})
  void requestsThatAreNotAlignedAreInvalid(int minimum) throws IOException {
    BlockSizes sizes = new BlockSizes(minimum, Math.max(minimum, 4096), 1 << 20);
    FakeBackend fake = new FakeBackend(4 * 65_536, sizes, FakeBackend.all());
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      long[][] misaligned = {
        {1, minimum}, {0, 1}, {0, minimum + 1}, {minimum - 1, minimum}, {minimum, minimum - 1}
      };
      for (long[] range : misaligned) {
        for (int command : new int[] {0, 1, 4, 5, 6}) {
          byte[] payload = new byte[command == RawClient.WRITE ? (int) range[1] : 0];
          client.call(RawClient.EINVAL, 0, command, range[0], range[1], payload);
        }
      }
      assertThat(fake.calls()).isEmpty();
      client.write(minimum, new byte[minimum]).read(2L * minimum, minimum);
      int tooMuch = (1 << 20) + minimum;
      client.call(RawClient.EINVAL, 0, RawClient.WRITE, 0, tooMuch, new byte[tooMuch]);
      client.call(RawClient.EINVAL, 0, RawClient.READ, 0, tooMuch);
      client.disconnect();
    }
  }

  @Test
  void nothingThatIsRefusedReachesTheStorage() throws IOException {
    FakeBackend fake = new FakeBackend(4096);
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      client.call(RawClient.ENOSPC, 0, RawClient.WRITE, 4095, 2, new byte[2]);
      client.call(RawClient.ENOSPC, 0, RawClient.WRITE_ZEROES, 4095, 2);
      client.call(RawClient.EINVAL, 0, RawClient.READ, 4095, 2);
      client.call(RawClient.EINVAL, 0x20, RawClient.WRITE, 0, 2, new byte[2]);
      for (int command : new int[] {0, 1, 4, 5, 6}) {
        client.call(0, 0, command, 4096, 0).call(0, 0, command, 0, 0);
      }
      assertThat(fake.calls()).isEmpty();
      client.disconnect();
    }
  }
}
