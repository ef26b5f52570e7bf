package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.StatusExtent;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Requests of 32 bytes: lengths of 64 bits, and payloads that say that they are there. */
@Timeout(120)
final class ExtendedHeadersTest {
  private static final int OK = 0;
  private static final int EINVAL = RawClient.EINVAL;
  private static final int ENOSPC = RawClient.ENOSPC;
  private static final int PAYLOAD = RawClient.PAYLOAD_LEN;
  private static final int MAXIMUM = 32 << 20;

  @Test
  void terabytesAreTrimmedZeroedCachedAndDescribedAtOnce() throws IOException {
    long size = 10L << 40;
    try (TestServer server = TestServer.of(new MemoryBackend(size));
        CheckedClient client = server.enter(Replies.EXTENDED)) {
      client.write(5L << 40, new byte[65_536]);
      client.write(size - 1, (byte) 9);
      client.call(OK, 0, RawClient.CACHE, 0, size);
      assertThat(client.status(0, 0, size))
          .containsExactly(
              new StatusExtent(5L << 40, 3),
              new StatusExtent(65_536, 0),
              new StatusExtent((5L << 40) - 2 * 65_536, 3),
              new StatusExtent(65_536, 0));
      client.call(OK, RawClient.FUA, RawClient.TRIM, 0, size - 65_536);
      client.call(OK, 0, RawClient.WRITE_ZEROES, 0, size);
      assertThat(client.status(0, 0, size)).containsExactly(new StatusExtent(size, 3));
      assertThat(client.read(size - 1, 1)).containsOnly(0);
      client.disconnect();
    }
  }

  @Test
  void everyReplyIsAChunkThatRepeatsTheOffset() throws IOException {
    try (TestServer server = TestServer.of(new FakeBackend(1 << 20));
        CheckedClient client = server.enter(Replies.EXTENDED)) {
      for (int type : new int[] {1, 3, 4, 5, 6}) {
        boolean write = type == RawClient.WRITE;
        long offset = type == RawClient.FLUSH ? 0 : 4096;
        long length = type == RawClient.FLUSH ? 0 : 512;
        int flags = write ? PAYLOAD : 0;
        byte[] payload = new byte[write ? 512 : 0];
        assertThat(client.call(OK, flags, type, offset, length, payload).types())
            .containsExactly(0);
      }
      client.disconnect();
    }
  }

  @Test
  void aWriteWithoutThePayloadFlagHasNoPayloadAndIsInvalid() throws IOException {
    FakeBackend fake = new FakeBackend(1 << 20);
    try (TestServer server = TestServer.of(fake);
        CheckedClient client = server.enter(Replies.EXTENDED)) {
      for (long length : new long[] {0, 1, 512, MAXIMUM, MAXIMUM + 1, 0xffffffffL, -1}) {
        assertThat(client.call(EINVAL, 0, RawClient.WRITE, 0, length).message())
            .contains("PAYLOAD_LEN");
        client.call(EINVAL, RawClient.FUA, RawClient.WRITE, 0, length);
      }
      assertThat(fake.calls()).isEmpty();
      client.call(OK, PAYLOAD, RawClient.WRITE, 0, 0);
      client.call(OK, PAYLOAD | RawClient.FUA, RawClient.WRITE, 0, 3, new byte[3]);
      client.disconnect();
    }
  }

  @Test
  void aPayloadWhereNoneBelongsIsDroppedAndInvalid() throws IOException {
    FakeBackend fake = new FakeBackend(1 << 20);
    try (TestServer server = TestServer.of(fake);
        CheckedClient client = server.enter(Replies.EXTENDED)) {
      for (int type : new int[] {0, 3, 4, 5, 6, 8, 99}) {
        for (int length : new int[] {0, 1, 32, 5000, 100_000, 1 << 20}) {
          byte[] payload = Bytes.random(type, length);
          client.call(EINVAL, PAYLOAD, type, 0, length, payload);
          client.call(EINVAL, PAYLOAD | RawClient.FUA, type, 0, length, payload);
        }
        client.call(EINVAL, PAYLOAD, type, 0, MAXIMUM, new byte[MAXIMUM]);
      }
      assertThat(fake.calls()).isEmpty();
      client.write(0, (byte) 1);
      assertThat(client.read(0, 1)).containsOnly(1);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @ValueSource(
      longs = {MAXIMUM + 1L, 0xffffffffL, 0x100000000L, Long.MAX_VALUE, Long.MIN_VALUE, -1})
  void aPayloadAboveTheMaximumEndsTheConnection(long length) throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(1 << 20))) {
      for (int type : new int[] {0, 3, 4, 5, 6, 7, 99}) {
        try (CheckedClient client = server.enter(Replies.EXTENDED)) {
          client.send(PAYLOAD, type, 0, length);
          client.raw().expectEnd();
        }
      }
      if (length > 128L << 20 || length < 0) {
        try (CheckedClient client = server.enter(Replies.EXTENDED)) {
          client.send(PAYLOAD, RawClient.WRITE, 0, length);
          client.raw().expectEnd();
        }
      }
    }
  }

  @Test
  void anOversizeWriteIsDrainedAndTheNextRequestParses() throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(1 << 30));
        CheckedClient client = server.enter(Replies.EXTENDED)) {
      int length = MAXIMUM + 1;
      client.call(EINVAL, PAYLOAD, RawClient.WRITE, 0, length, new byte[length]);
      client.call(OK, PAYLOAD, RawClient.WRITE, 0, MAXIMUM, new byte[MAXIMUM]);
      client.disconnect();
    }
  }

  @Test
  void lengthsOfAnySizeAreCheckedAgainstTheEnd() throws IOException {
    long size = (8L << 30) + 512;
    long[] lengths = {
      0xffffffffL, 1L << 32, size, size + 1, Long.MAX_VALUE, Long.MIN_VALUE, -size, -1
    };
    long[] offsets = {0, 1, size - 1, size, size + 1, Long.MAX_VALUE, Long.MIN_VALUE, -1};
    try (TestServer server = TestServer.of(new NullBackend(size));
        CheckedClient client = server.enter(Replies.EXTENDED)) {
      for (long offset : offsets) {
        for (long length : lengths) {
          boolean inside = offset >= 0 && offset <= size && length >= 0 && length <= size - offset;
          for (int type : new int[] {4, 5, 7}) {
            client.call(inside ? OK : EINVAL, 0, type, offset, length);
          }
          client.call(inside ? OK : ENOSPC, 0, RawClient.WRITE_ZEROES, offset, length);
          client.call(EINVAL, 0, RawClient.READ, offset, length);
          client.call(EINVAL, 0, RawClient.FLUSH, offset, length);
        }
      }
      client.disconnect();
    }
  }

  @Test
  void aCompactRequestIsGarbage() throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(1 << 20));
        CheckedClient client = server.enter(Replies.EXTENDED)) {
      client.read(0, 1);
      client.raw().request(0, RawClient.READ, 1, 0, 512, (byte) 0, (byte) 0, (byte) 0, (byte) 0);
      client.raw().expectEnd();
    }
  }

  @Test
  void anExtendedRequestIsGarbageToWhoAgreedOnStructuredReplies() throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(1 << 20));
        CheckedClient extended = server.enter(Replies.EXTENDED);
        CheckedClient client = server.enter(Replies.STRUCTURED)) {
      client.call(EINVAL, PAYLOAD, RawClient.WRITE, 0, 3, new byte[3]);
      client.call(EINVAL, PAYLOAD, RawClient.READ, 0, 3);
      client.call(EINVAL, PAYLOAD, RawClient.BLOCK_STATUS, 0, 12);
      client.raw().send(extended.requestBytes(0, RawClient.READ, 1, 0, 1)).expectEnd();
    }
  }

  @Test
  void aStatusThatNamesItsContextIsFiltered() throws IOException {
    long size = 10L << 40;
    try (TestServer server = TestServer.of(new MemoryBackend(size));
        CheckedClient client = server.enter(Replies.EXTENDED)) {
      int one = RawClient.CONTEXT;
      assertThat(client.filteredStatus(0, 0, size, one).extents())
          .containsExactly(new StatusExtent(size, 3));
      assertThat(client.filteredStatus(RawClient.REQ_ONE, 5, 10, one).extents())
          .containsExactly(new StatusExtent(10, 3));
      int[][] wrong = {
        {}, {0}, {2}, {-1}, {one, one}, {one, 2}, {2, one}, {one, 0, 3}, new int[99]
      };
      for (int[] contexts : wrong) {
        assertThat(client.filteredStatus(0, 0, 512, contexts).error()).isEqualTo(RawClient.EINVAL);
      }
      for (long length : new long[] {0, size + 1, -1, Long.MIN_VALUE}) {
        assertThat(client.filteredStatus(0, 0, length, one).error()).isEqualTo(RawClient.EINVAL);
      }
      assertThat(client.filteredStatus(0, size, 1, one).error()).isEqualTo(RawClient.EINVAL);
      assertThat(client.filteredStatus(2, 0, 512, one).error()).isEqualTo(RawClient.EINVAL);
      for (int bytes : new int[] {0, 1, 4, 8, 11, 13, 16, 5000, MAXIMUM}) {
        client.call(EINVAL, PAYLOAD, RawClient.BLOCK_STATUS, 0, bytes, new byte[bytes]);
      }
      client.disconnect();
    }
  }

  @Test
  void aStatusPayloadWithoutASelectedContextIsInvalid() throws IOException {
    try (TestServer server = TestServer.of(new MemoryBackend(1 << 20));
        RawClient raw = server.connect()) {
      raw.hello(3).option(11).expectAck(11);
      CheckedClient client = CheckedClient.go(raw, Replies.EXTENDED, "");
      for (int contexts = 0; contexts < 3; contexts++) {
        assertThat(client.filteredStatus(0, 0, 512, new int[contexts]).error())
            .isEqualTo(RawClient.EINVAL);
        assertThat(client.filteredStatus(0, 0, 512, 1).error()).isEqualTo(RawClient.EINVAL);
      }
      client.read(0, 512);
      client.disconnect();
    }
  }

  @Test
  void aGoodbyeMayHaveAnything() throws IOException {
    try (TestServer server = TestServer.of(new MemoryBackend(1 << 20))) {
      for (int flags : new int[] {0, PAYLOAD, 0xffff}) {
        try (CheckedClient client = server.enter(Replies.EXTENDED)) {
          client.raw().send(client.requestBytes(flags, RawClient.DISC, 1, -1, -1)).expectEnd();
        }
      }
    }
  }
}
