package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import nbd.memory.NullBackend;
import nbd.protocol.BlockSizes;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.Answer;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The protocol's table of errors where replies are chunks: each has a sentence that says why. */
@Timeout(120)
final class ChunkErrorTableTest {
  private static final int EINVAL = RawClient.EINVAL;
  private static final long MAXIMUM = 32 << 20;
  private static final long SIZE = 2 * MAXIMUM;
  private static final long[] LENGTHS = {0, 1, MAXIMUM, MAXIMUM + 1, 0xffffffffL};
  private static final long[] OFFSETS = {
    0, SIZE - 1, SIZE, SIZE + 1, Long.MAX_VALUE, Long.MIN_VALUE, -1
  };

  private static int expected(int command, long offset, long length) {
    boolean payload = command == RawClient.READ || command == RawClient.WRITE;
    boolean past = Long.compareUnsigned(offset, SIZE) > 0 || length > SIZE - offset;
    if (command == RawClient.FLUSH) {
      return offset == 0 && length == 0 ? 0 : RawClient.EINVAL;
    }
    if (payload ? length > MAXIMUM : command == RawClient.BLOCK_STATUS && length == 0) {
      return RawClient.EINVAL;
    }
    boolean grows = command == RawClient.WRITE || command == RawClient.WRITE_ZEROES;
    return !past ? 0 : grows ? RawClient.ENOSPC : RawClient.EINVAL;
  }

  private static void said(Answer answer) {
    if (answer.error() != 0) {
      assertThat(answer.message()).contains(" ");
      assertThat(answer.types()).containsExactly(0x8001);
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void everyLengthAtEveryOffset(Replies replies) throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(SIZE));
        CheckedClient client = server.enter(replies)) {
      for (int command : new int[] {0, 1, 3, 4, 5, 6, 7}) {
        boolean write = command == RawClient.WRITE;
        for (long length : LENGTHS) {
          if (write && length > 128 << 20) {
            continue;
          }
          byte[] payload = new byte[write ? (int) length : 0];
          for (long offset : OFFSETS) {
            int error = expected(command, offset, length);
            int flags = write ? client.writeFlags() : 0;
            said(client.call(error, flags, command, offset, length, payload));
          }
        }
      }
      client.disconnect();
    }
  }

  /** With and without a payload where the flag says that there is one. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void everyFlagOfEveryCommand(Replies replies) throws IOException {
    boolean wide = replies == Replies.EXTENDED;
    try (TestServer server = TestServer.of(new NullBackend(SIZE));
        CheckedClient client = server.enter(replies)) {
      for (int command : new int[] {0, 1, 3, 4, 5, 6, 7, 8, 9, 0x7fff, 0xffff}) {
        int allowed =
            switch (command) {
              case RawClient.READ -> 5;
              case RawClient.WRITE -> wide ? 0x21 : 1;
              case RawClient.BLOCK_STATUS -> 9;
              case RawClient.WRITE_ZEROES -> 0x13;
              default -> command < 8 ? 1 : 0;
            };
        int required = command == RawClient.WRITE && wide ? 0x20 : 0;
        for (int bit = 0; bit < 16; bit++) {
          for (int flags : new int[] {1 << bit, 1 << bit | 1, 1 << bit | 0x20, 1 << bit | 0x2}) {
            boolean good = (flags & ~allowed) == 0 && (flags & required) == required && command < 8;
            int length = command == RawClient.FLUSH ? 0 : 12;
            boolean payload = wide ? (flags & 0x20) != 0 : command == RawClient.WRITE;
            int error = good ? 0 : RawClient.EINVAL;
            said(client.call(error, flags, command, 0, length, new byte[payload ? length : 0]));
          }
        }
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aReadOnlyExportPermitsNoWriting(Replies replies) throws IOException {
    int eperm = RawClient.EPERM;
    try (TestServer server = TestServer.with(new NullBackend(SIZE)).readOnly().start();
        CheckedClient client = server.enter(replies)) {
      for (int length : new int[] {0, 1, 100_000, (int) MAXIMUM, (int) MAXIMUM + 1}) {
        Answer answer =
            client.call(eperm, client.writeFlags(), RawClient.WRITE, 0, length, new byte[length]);
        assertThat(answer.message()).contains("read-only");
        client.call(eperm, RawClient.FUA, RawClient.TRIM, 0, length);
        client.call(eperm, RawClient.NO_HOLE, RawClient.WRITE_ZEROES, 0, length);
      }
      client.read(SIZE - 10, 10);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void requestsThatAreNotAlignedAreInvalid(Replies replies) throws IOException {
    BlockSizes sizes = new BlockSizes(512, 4096, 1 << 20);
    FakeBackend fake = new FakeBackend(4 * 65_536, sizes, FakeBackend.all());
    try (TestServer server = TestServer.of(fake);
        CheckedClient client = server.enter(replies)) {
      for (int[] range : new int[][] {{1, 512}, {0, 1}, {0, 513}, {511, 512}, {512, 511}}) {
        for (int command : new int[] {0, 1, 4, 5, 6, 7}) {
          boolean write = command == RawClient.WRITE;
          byte[] payload = new byte[write ? range[1] : 0];
          int flags = write ? client.writeFlags() : 0;
          said(client.call(EINVAL, flags, command, range[0], range[1], payload));
        }
      }
      assertThat(fake.calls()).isEmpty();
      client.disconnect();
    }
  }
}
