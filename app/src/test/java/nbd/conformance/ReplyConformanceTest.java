package nbd.conformance;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.Answer;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Each form of a reply, and each chunk. What all of them have to keep, such as that content lies in
 * the request's range and covers it, {@link CheckedClient} checks of every reply; errors in the
 * middle of content are in {@code nbd.server.StructuredReplyTest}.
 */
final class ReplyConformanceTest extends EveryStorage {
  private static final int NONE = 0;
  private static final int OFFSET_DATA = 1;
  private static final int OFFSET_HOLE = 2;
  private static final int BLOCK_STATUS = 5;
  private static final int BLOCK_STATUS_EXT = 6;
  private static final int ERROR = 0x8001;
  private static final int SIMPLE_REPLY = -1;

  private static CheckedClient enter(Replies replies) throws IOException {
    return CheckedClient.enter(served().server().connect(), replies, served().name());
  }

  /** The bytes of an empty READ's reply, and of an error's, in each form. */
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
    try (CheckedClient client = enter(Replies.STRUCTURED)) {
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
    try (CheckedClient client = enter(Replies.EXTENDED)) {
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

  /** EINVAL, the length of its sentence, and the sentence. */
  private static void error(ByteBuffer payload) {
    assertThat(payload.getInt()).isEqualTo(22);
    assertThat((int) payload.getShort()).isEqualTo(payload.remaining()).isPositive();
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void dataComesInChunksOfDataWhereThereIsSome(Replies replies) throws IOException {
    try (CheckedClient client = enter(replies)) {
      byte[] data = Bytes.random(1, 1 << 20);
      boolean written =
          client.ask(client.writeFlags(), RawClient.WRITE, 0, data.length, data).error() == 0;
      Answer answer = client.ask(0, RawClient.READ, 0, data.length);
      if (written) {
        assertThat(answer.types()).contains(OFFSET_DATA).doesNotContain(OFFSET_HOLE);
      }
      assertThat(answer.types()).isSubsetOf(OFFSET_DATA, OFFSET_HOLE, NONE);
      client.disconnect();
    }
  }

  /** What was never written may come as a hole; the client checks that it covers what it should. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void holesComeAsHolesOrAsZeroes(Replies replies) throws IOException {
    int length = served().blockSizes().maximumPayload() / 2;
    try (CheckedClient client = enter(replies)) {
      Answer answer = client.ask(0, RawClient.READ, (long) Storage.SIZE - length, length);
      assertThat(answer.error()).isZero();
      assertThat(Arrays.equals(answer.data(), new byte[length])).as("zeroes").isTrue();
      assertThat(answer.types()).isSubsetOf(OFFSET_DATA, OFFSET_HOLE, NONE);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void successWithoutContentIsAChunkOfNothingOrASimpleReply(Replies replies) throws IOException {
    try (CheckedClient client = enter(replies)) {
      for (int type : new int[] {1, 4, 5, 6, 3}) {
        boolean write = type == RawClient.WRITE;
        int length = type == RawClient.FLUSH ? 0 : UNIT;
        Answer answer =
            client.ask(
                write ? client.writeFlags() : 0, type, 0, length, new byte[write ? length : 0]);
        List<Integer> plain = List.of(replies == Replies.EXTENDED ? NONE : SIMPLE_REPLY);
        assertThat(answer.types()).isEqualTo(answer.error() == 0 ? plain : List.of(ERROR));
        assertThat(answer.message().isEmpty()).isEqualTo(answer.error() == 0);
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void extentsComeInOneChunkOfTheLayoutsType(Replies replies) throws IOException {
    try (CheckedClient client = enter(replies)) {
      int type = replies == Replies.EXTENDED ? BLOCK_STATUS_EXT : BLOCK_STATUS;
      for (int flags : new int[] {0, RawClient.REQ_ONE}) {
        assertThat(client.ask(flags, RawClient.BLOCK_STATUS, 0, Storage.SIZE).types())
            .containsExactly(type);
      }
      client.disconnect();
    }
  }
}
