package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import nbd.memory.MemoryBackend;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.RawClient;
import nbd.testing.RawClient.Reply;
import nbd.testing.Replies;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Structured replies, extended headers and contexts as options: what is agreed on, and forgotten.
 */
@Timeout(60)
final class MetaContextTest {
  private static final int SR = 8;
  private static final int LIST = 9;
  private static final int SET = 10;
  private static final int EXTENDED = 11;
  private static final int ERR_EXT_HEADER_REQD = 0x8000000a;
  private static final int OK = 0;
  private static final int EINVAL = RawClient.EINVAL;

  private TestServer server;
  private RawClient client;

  @BeforeEach
  void start() throws IOException {
    server = TestServer.with(new MemoryBackend(1 << 20)).names("a", "b").start();
    client = server.connect().hello(3);
  }

  @AfterEach
  void stop() throws IOException {
    client.close();
    server.close();
  }

  /** The contexts that an option is answered with, each with its number. */
  private List<String> contexts(int option, byte... data) throws IOException {
    client.option(option, data);
    List<String> all = new ArrayList<>();
    while (true) {
      Reply reply = client.reply(option);
      if (reply.type() == RawClient.ACK) {
        assertThat(reply.data()).isEmpty();
        return all;
      }
      assertThat(reply.type()).as(RawClient.text(reply)).isEqualTo(4);
      all.add(reply.data()[3] + " " + RawClient.text(reply).substring(4));
    }
  }

  private boolean hasBlockStatus(Replies replies, String name) throws IOException {
    try (CheckedClient chunks = CheckedClient.go(client, replies, name)) {
      boolean has = chunks.ask(0, RawClient.BLOCK_STATUS, 0, 512).error() == 0;
      if (!has) {
        chunks.call(EINVAL, 0, RawClient.BLOCK_STATUS, 0, 512);
      }
      chunks.call(OK, 0, RawClient.READ, 0, 512);
      chunks.disconnect();
      return has;
    }
  }

  @Test
  void eachQueryThatFitsListsTheContextOnce() throws IOException {
    client.option(SR).expectAck(SR);
    String all = "0 base:allocation";
    assertThat(contexts(LIST, RawClient.contextData("a"))).containsExactly(all);
    for (String query : List.of("base:", "base:allocation")) {
      assertThat(contexts(LIST, RawClient.contextData("b", query))).containsExactly(all);
    }
    assertThat(
            contexts(
                LIST,
                RawClient.contextData("a", "base:", "x:", "base:allocation", "base:allocation")))
        .containsExactly(all);
    for (String query :
        List.of(
            "", "base", "base:alloc", "base:allocation2", "Base:", ":", "qemu:dirty-bitmap:x")) {
      assertThat(contexts(LIST, RawClient.contextData("a", query))).as(query).isEmpty();
    }
  }

  @Test
  void onlyItsNameSelectsTheContext() throws IOException {
    client.option(SR).expectAck(SR);
    assertThat(contexts(SET, RawClient.contextData("a"))).isEmpty();
    assertThat(contexts(SET, RawClient.contextData("a", "base:", "x-y:z", "nocolon"))).isEmpty();
    assertThat(
            contexts(
                SET,
                RawClient.contextData("a", "x:", "base:allocation", "base:allocation", "base:")))
        .containsExactly("1 base:allocation");
    assertThat(hasBlockStatus(Replies.STRUCTURED, "a")).isTrue();
  }

  @Test
  void withoutChunksThereAreNoContexts() throws IOException {
    for (int option : new int[] {LIST, SET}) {
      client.option(option, RawClient.contextData("a", "base:allocation"));
      client.expectError(option, RawClient.ERR_INVALID);
    }
    client.option(RawClient.GO, RawClient.infoData("a"));
    assertThat(RawClient.export(client.expectInfos(RawClient.GO)).has(7)).as("SEND_DF").isFalse();
    client.call(RawClient.EINVAL, 0, RawClient.BLOCK_STATUS, 0, 512);
    client.call(RawClient.EINVAL, RawClient.DF, RawClient.READ, 0, 512);
    client.disconnect();
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aSelectionCountsForItsOwnExportOnly(Replies replies) throws IOException {
    client.option(replies.option()).expectAck(replies.option());
    client.selectAllocation("a");
    assertThat(hasBlockStatus(replies, "b")).isFalse();
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aSelectionIsReplacedByTheNextAlsoByOneThatFails(Replies replies) throws IOException {
    byte[] overrun = Bytes.of().u32(1).text("a").u32(1).u32(100).text("base:allocation").toArray();
    for (int i = 0; i < 4; i++) {
      client.close();
      client = server.connect().hello(3);
      client.option(replies.option()).expectAck(replies.option());
      client.selectAllocation("a");
      switch (i) {
        case 0 -> client.option(SET, overrun).expectError(SET, RawClient.ERR_INVALID);
        case 1 -> assertThat(contexts(SET, RawClient.contextData("a"))).isEmpty();
        case 2 -> client.selectAllocation("b");
        default -> {
          client.option(SET, RawClient.contextData("nobody", "base:allocation"));
          assertThat(client.expectError(SET, RawClient.ERR_UNKNOWN)).contains("nobody");
        }
      }
      assertThat(hasBlockStatus(replies, "a")).isFalse();
    }
  }

  @Test
  void listingChangesNoSelection() throws IOException {
    client.option(SR).expectAck(SR);
    client.selectAllocation("a");
    contexts(LIST, RawClient.contextData("b", "x:"));
    client.option(LIST, RawClient.contextData("nobody"));
    client.expectError(LIST, RawClient.ERR_UNKNOWN);
    assertThat(hasBlockStatus(Replies.STRUCTURED, "a")).isTrue();
  }

  @ParameterizedTest
  @ValueSource(ints = {LIST, SET})
  void malformedQueriesAreInvalidAndTheNextOptionParses(int option) throws IOException {
    byte[] header = RawClient.optionBytes(RawClient.ABORT);
    byte[][] malformed = {
      {},
      {0, 0, 0},
      Bytes.of().u32(0).toArray(),
      Bytes.of().u32(1).text("a").toArray(),
      Bytes.of().u32(1).text("a").u16(0).toArray(),
      Bytes.of().u32(2).text("a").u32(0).toArray(),
      Bytes.of().u32(0xffffffffL).text("a").u32(0).toArray(),
      Bytes.of().u32(0x80000000L).text("a").u32(0).toArray(),
      Bytes.of().u32(4097).raw(new byte[4097]).u32(0).toArray(),
      Bytes.of().u32(1).raw((byte) 0xff).u32(0).toArray(),
      Bytes.of().u32(1).text("a").u32(1).toArray(),
      Bytes.of().u32(1).text("a").u32(2).u32(0).toArray(),
      Bytes.of().u32(1).text("a").u32(0xffffffffL).toArray(),
      Bytes.of().u32(1).text("a").u32(0xffffffffL).u32(5).text("base:").toArray(),
      Bytes.of().u32(1).text("a").u32(0x40000001L).u32(0).toArray(),
      Bytes.of().u32(1).text("a").u32(1).u32(6).text("base:").toArray(),
      Bytes.of().u32(1).text("a").u32(1).u32(0xffffffffL).text("base:").toArray(),
      Bytes.of().u32(1).text("a").u32(1).u32(4097).raw(new byte[4097]).toArray(),
      Bytes.of().u32(1).text("a").u32(0).raw(header).toArray(),
      Bytes.of().u32(1).text("a").u32(1).u32(5).text("base:").raw(header).toArray(),
    };
    client.option(SR).expectAck(SR);
    for (byte[] data : malformed) {
      client.option(option, data).expectError(option, RawClient.ERR_INVALID);
    }
    client.selectAllocation("a");
    assertThat(hasBlockStatus(Replies.STRUCTURED, "a")).isTrue();
  }

  @Test
  void manyQueriesAreLookedAtAndTooManyAreTooBig() throws IOException {
    client.option(SR).expectAck(SR);
    Bytes data = Bytes.of().u32(1).text("a").u32(33_000);
    for (int i = 0; i < 33_000; i++) {
      data.u32(0);
    }
    assertThat(contexts(SET, data.toArray())).isEmpty();
    client.option(SET, new byte[150_000]).expectError(SET, RawClient.ERR_TOO_BIG);
    client.selectAllocation("a");
  }

  @Test
  void queriesThatAreNotTextAreIgnored() throws IOException {
    client.option(SR).expectAck(SR);
    byte[] data =
        Bytes.of()
            .u32(1)
            .text("a")
            .u32(2)
            .u32(3)
            .raw((byte) 0xff, (byte) 0, (byte) 0xc3)
            .u32(15)
            .text("base:allocation")
            .toArray();
    assertThat(contexts(SET, data)).containsExactly("1 base:allocation");
  }

  @ParameterizedTest
  @ValueSource(ints = {SR, EXTENDED})
  void anOptionWithDataThatTakesNoneIsInvalidAndChangesNothing(int option) throws IOException {
    client.option(option, (byte) 1).expectError(option, RawClient.ERR_INVALID);
    client.option(option, new byte[70_000]).expectError(option, RawClient.ERR_INVALID);
    client.option(LIST, RawClient.contextData("a")).expectError(LIST, RawClient.ERR_INVALID);
    client.option(RawClient.GO, RawClient.infoData("a"));
    client.expectInfos(RawClient.GO);
    client.read(0, 10);
    client.disconnect();
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void askingTwiceIsHarmless(Replies replies) throws IOException {
    client.option(replies.option()).expectAck(replies.option());
    client.option(replies.option()).expectAck(replies.option());
    client.selectAllocation("a");
    assertThat(hasBlockStatus(replies, "a")).isTrue();
  }

  @Test
  void extendedHeadersTakePrecedenceOverStructuredReplies() throws IOException {
    client.option(SR).expectAck(SR);
    client.option(EXTENDED).expectAck(EXTENDED);
    client.option(SR).expectError(SR, ERR_EXT_HEADER_REQD);
    client.selectAllocation("a");
    assertThat(hasBlockStatus(Replies.EXTENDED, "a")).isTrue();
  }

  @Test
  void exportNameIsForbiddenWithExtendedHeaders() throws IOException {
    client.option(EXTENDED).expectAck(EXTENDED);
    client.option(RawClient.EXPORT_NAME, (byte) 'a').expectEnd();
  }

  @Test
  void exportNameEntersWithStructuredReplies() throws IOException {
    client.option(SR).expectAck(SR);
    client.option(RawClient.EXPORT_NAME, (byte) 'a');
    byte[] export = client.take(10);
    assertThat(export[9] & 0x80).as("SEND_DF").isNotZero();
    client.request(0, RawClient.READ, 7, 0, 10);
    byte[] header = Bytes.of().u32(0x668e33ef).u16(1).u16(1).u64(7).u32(18).u64(0).toArray();
    assertThat(client.take(28)).isEqualTo(header);
    client.take(10);
    client.disconnect();
  }

  /** What is told follows what was agreed on, also where an INFO came before. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void theFlagsSayWhatWasAgreedOn(Replies replies) throws IOException {
    client.option(RawClient.OPT_INFO, RawClient.infoData("a"));
    assertThat(RawClient.export(client.expectInfos(RawClient.OPT_INFO)).has(7)).isFalse();
    client.option(replies.option()).expectAck(replies.option());
    client.option(RawClient.OPT_INFO, RawClient.infoData("a"));
    RawClient.Export told = RawClient.export(client.expectInfos(RawClient.OPT_INFO));
    assertThat(told.has(7)).as("SEND_DF").isTrue();
    assertThat(told.has(12)).as("BLOCK_STATUS_PAYLOAD without a context").isFalse();
    client.selectAllocation("a");
    try (CheckedClient chunks = CheckedClient.go(client, replies, "a")) {
      assertThat(chunks.export().has(7)).as("SEND_DF").isTrue();
      assertThat(chunks.export().has(12))
          .as("BLOCK_STATUS_PAYLOAD")
          .isEqualTo(replies == Replies.EXTENDED);
      assertThat(server.contract().openHandles()).isEqualTo(2);
      chunks.disconnect();
    }
  }
}
