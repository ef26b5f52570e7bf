package nbd.conformance;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import org.junit.jupiter.api.Test;

/**
 * The bytes of replies in each form. {@link CheckedClient} checks of every reply what all have to
 * keep, such as that content lies in the request's range and covers it; errors in the middle of
 * content are in {@code nbd.server.StructuredReplyTest}.
 */
final class ReplyConformanceTest extends ThreeStorages {
  private static final int NONE = 0;
  private static final int ERROR = 0x8001;

  @Test
  void simpleRepliesAreSixteenBytesAndErrorsHaveNoMore() throws IOException {
    try (RawClient client = served().server().connect()) {
      client.enter(served().name());
      client.request(0, RawClient.READ, 0x0102030405060708L, 0, 0);
      assertThat(client.take(16))
          .isEqualTo(Bytes.of().u32(0x67446698).u32(0).u64(0x0102030405060708L).toArray());
      client.request(0, RawClient.READ, -1, Storage.SIZE, UNIT);
      assertThat(client.take(16)).isEqualTo(Bytes.of().u32(0x67446698).u32(22).u64(-1).toArray());
      client.disconnect();
    }
  }

  @Test
  void structuredChunksAreTwentyBytesAndTheirPayload() throws IOException {
    try (CheckedClient client = served().enter(Replies.STRUCTURED)) {
      RawClient raw = client.raw();
      raw.request(0, RawClient.READ, 7, UNIT, 0);
      assertThat(raw.take(20))
          .isEqualTo(Bytes.of().u32(0x668e33ef).u16(1).u16(NONE).u64(7).u32(0).toArray());
      raw.request(0, RawClient.READ, 8, Storage.SIZE, UNIT);
      ByteBuffer header = ByteBuffer.wrap(raw.take(20));
      assertThat(header.slice(0, 16))
          .isEqualTo(
              ByteBuffer.wrap(Bytes.of().u32(0x668e33ef).u16(1).u16(ERROR).u64(8).toArray()));
      error(ByteBuffer.wrap(raw.take(header.getInt(16))));
      client.disconnect();
    }
  }

  @Test
  void extendedChunksAreThirtyTwoBytesAndTheirPayload() throws IOException {
    try (CheckedClient client = served().enter(Replies.EXTENDED)) {
      RawClient raw = client.raw();
      raw.send(client.requestBytes(0, RawClient.READ, 7, UNIT, 0));
      assertThat(raw.take(32))
          .isEqualTo(Bytes.of().u32(0x6e8a278c).u16(1).u16(0).u64(7).u64(UNIT).u64(0).toArray());
      raw.send(client.requestBytes(0, RawClient.READ, 8, Storage.SIZE, UNIT));
      ByteBuffer header = ByteBuffer.wrap(raw.take(32));
      byte[] expected =
          Bytes.of().u32(0x6e8a278c).u16(1).u16(ERROR).u64(8).u64(Storage.SIZE).toArray();
      assertThat(header.slice(0, 24)).isEqualTo(ByteBuffer.wrap(expected));
      error(ByteBuffer.wrap(raw.take((int) header.getLong(24))));
      client.disconnect();
    }
  }

  /** Checks an error's payload: EINVAL, a message's length, and the message. */
  private static void error(ByteBuffer payload) {
    assertThat(payload.getInt()).isEqualTo(22);
    assertThat((int) payload.getShort()).isEqualTo(payload.remaining()).isPositive();
  }
}
