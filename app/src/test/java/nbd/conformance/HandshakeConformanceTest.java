package nbd.conformance;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import nbd.protocol.BlockSizes;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.RawClient;
import nbd.testing.RawClient.Export;
import nbd.testing.RawClient.Reply;
import nbd.testing.Replies;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Each option, and each reply to one. TLS is tested in {@code nbd.server.StartTlsTest}, and what is
 * malformed in {@link WaysHandshakesBrokeTest}.
 */
final class HandshakeConformanceTest extends ThreeStorages {
  private static final String CONTEXT = "base:allocation";

  private static byte[] name() {
    return served().name().getBytes(UTF_8);
  }

  private static RawClient hello() throws IOException {
    return served().server().connect().hello(3);
  }

  private static byte[] question(int... infos) {
    return RawClient.infoData(served().name(), infos);
  }

  private static void serves(RawClient client) throws IOException {
    assertThat(client.read(0, UNIT)).hasSize(UNIT);
    client.disconnect();
  }

  /** Bit 0 of the client's flags is FIXED_NEWSTYLE, bit 1 NO_ZEROES. */
  @ParameterizedTest
  @ValueSource(ints = {0, 1, 2, 3})
  void exportNameEntersWithSizeAndFlagsAndZeroesUnlessRefused(int clientFlags) throws IOException {
    try (RawClient client = served().server().connect()) {
      client.hello(clientFlags).option(RawClient.EXPORT_NAME, name());
      ByteBuffer told = ByteBuffer.wrap(client.take(10));
      assertThat(told.getLong()).isEqualTo(Storage.SIZE);
      assertThat(told.getShort() & 1).as("HAS_FLAGS").isEqualTo(1);
      if ((clientFlags & 2) == 0) {
        assertThat(client.take(124)).containsOnly(0);
      }
      serves(client);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 2})
  void withoutFixedNewstyleEveryOtherOptionIsTheEnd(int clientFlags) throws IOException {
    for (int option : new int[] {2, 3, 5, 6, 7, 8, 99}) {
      try (RawClient client = served().server().connect()) {
        client.hello(clientFlags).option(option).expectEnd();
      }
    }
  }

  @Test
  void exportNameOfAnotherNameIsTheEnd() throws IOException {
    try (RawClient client = hello()) {
      client.option(RawClient.EXPORT_NAME, "nobody".getBytes(UTF_8)).expectEnd();
    }
  }

  @Test
  void exportNameEntersWithStructuredRepliesAndAfterAnInfo() throws IOException {
    try (RawClient client = hello()) {
      client.agree(Replies.STRUCTURED).option(RawClient.OPT_INFO, question());
      client.expectInfos(RawClient.OPT_INFO);
      client.option(RawClient.EXPORT_NAME, name());
      assertThat(client.take(10)[9] & 0x80).as("SEND_DF").isNotZero();
      client.request(0, RawClient.READ, 7, 0, 0);
      assertThat(client.take(20))
          .isEqualTo(Bytes.of().u32(0x668e33ef).u16(1).u16(0).u64(7).u32(0).toArray());
      client.disconnect();
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 5000, 100_000})
  void abortIsAcknowledgedWhateverItBrings(int length) throws IOException {
    try (RawClient client = hello()) {
      client.option(RawClient.ABORT, new byte[length]).expectAck(RawClient.ABORT).expectEnd();
    }
  }

  @Test
  void listNamesTheExport() throws IOException {
    try (RawClient client = hello()) {
      client.option(RawClient.LIST);
      Reply server = client.reply(RawClient.LIST);
      assertThat(server.type()).isEqualTo(RawClient.SERVER);
      assertThat(server.data()).startsWith(Bytes.of().u32(name().length).raw(name()).toArray());
      client.expectAck(RawClient.LIST).abort();
    }
  }

  /** PEEK_EXPORT, which was withdrawn, and numbers that nobody has given a meaning. */
  @ParameterizedTest
  @ValueSource(ints = {0, 4, 12, 99, 0x7fffffff, 0x80000000, -1})
  void unknownOptionsAreUnsupportedAndTheNextParses(int option) throws IOException {
    try (RawClient client = hello()) {
      for (int length : new int[] {0, 1, 40, 5000}) {
        client.option(option, Bytes.random(option, length));
        client.expectError(option, RawClient.ERR_UNSUP);
      }
      client.go(served().name());
      serves(client);
    }
  }

  @Test
  void optionsThatArriveTogetherAreAnsweredInOrder() throws IOException {
    try (RawClient client = hello()) {
      Bytes all = Bytes.of();
      for (int option = 100; option < 150; option++) {
        all.raw(RawClient.optionBytes(option, new byte[option]));
      }
      client.send(all.toArray());
      for (int option = 100; option < 150; option++) {
        assertThat(client.expectError(option, RawClient.ERR_UNSUP)).contains("" + option);
      }
      client.abort();
    }
  }

  @Test
  void withoutTlsStartTlsIsRefusedByPolicy() throws IOException {
    try (RawClient client = hello()) {
      client.option(RawClient.STARTTLS);
      client.expectError(RawClient.STARTTLS, RawClient.ERR_POLICY);
      client.go(served().name());
      serves(client);
    }
  }

  /** Every piece of information that there is, asked for and unasked, and unknown ones. */
  @ParameterizedTest
  @ValueSource(ints = {RawClient.OPT_INFO, RawClient.GO})
  void infoAndGoTellOnceWhatTheyAreAskedFor(int option) throws IOException {
    BlockSizes sizes =
        storage == Storage.UPSTREAM_OF_BLOCKS
            ? new BlockSizes(512, 4096, 4 << 20)
            : BlockSizes.DEFAULT;
    byte[] blocks =
        Bytes.of()
            .u16(3)
            .u32(sizes.minimum())
            .u32(sizes.preferred())
            .u32(sizes.maximumPayload())
            .toArray();
    try (RawClient client = hello()) {
      client.option(option, question(3, 1, 0, 2, 3, 4, 17, 0xffff, 1));
      List<Reply> infos = client.expectInfos(option);
      assertThat(infos.stream().map(RawClient::infoType)).containsExactlyInAnyOrder(0, 1, 2, 3);
      assertThat(RawClient.export(infos).size()).isEqualTo(Storage.SIZE);
      assertThat(infos.stream().map(Reply::data))
          .contains(Bytes.of().u16(1).raw(name()).toArray())
          .contains(Bytes.of().u16(2).text("for tests").toArray())
          .contains(blocks);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {RawClient.OPT_INFO, RawClient.GO})
  void withoutARequestOnlyTheExportIsDescribed(int option) throws IOException {
    try (RawClient client = hello()) {
      List<Reply> infos = client.option(option, question()).expectInfos(option);
      assertThat(infos).hasSize(1);
      assertThat(RawClient.export(infos).size()).isEqualTo(Storage.SIZE);
    }
  }

  @Test
  void goRepeatsWhatInfoToldFromTheSameHandleAndEntersWithoutZeroes() throws IOException {
    try (RawClient client = served().server().connect()) {
      int before = served().server().contract().openedHandles();
      client.hello(1).option(RawClient.OPT_INFO, question());
      Export told = RawClient.export(client.expectInfos(RawClient.OPT_INFO));
      assertThat(client.go(served().name())).isEqualTo(told);
      assertThat(served().server().contract().openedHandles()).isEqualTo(before + 1);
      serves(client);
    }
  }

  /** The flags follow what was agreed on, also where an INFO came before. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void theFlagsFollowTheOptionsSinceAnInfo(Replies replies) throws IOException {
    int df = 7;
    int blockStatusPayload = 12;
    try (RawClient client = hello()) {
      client.option(RawClient.OPT_INFO, question());
      assertThat(RawClient.export(client.expectInfos(RawClient.OPT_INFO)).has(df)).isFalse();
      client.agree(replies).option(RawClient.OPT_INFO, question());
      Export told = RawClient.export(client.expectInfos(RawClient.OPT_INFO));
      assertThat(told.has(df)).isTrue();
      assertThat(told.has(blockStatusPayload)).as("without a context").isFalse();
      Export entered = client.selectAllocation(served().name()).go(served().name());
      assertThat(entered.has(df)).isTrue();
      assertThat(entered.has(blockStatusPayload)).isEqualTo(replies == Replies.EXTENDED);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {RawClient.OPT_INFO, RawClient.GO})
  void anotherNameIsUnknownAndTheNextIsServed(int option) throws IOException {
    try (RawClient client = hello()) {
      client.option(option, RawClient.infoData("nobody"));
      assertThat(client.expectError(option, RawClient.ERR_UNKNOWN)).contains("\"nobody\"");
      client.go(served().name());
      serves(client);
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void chunksMayBeAgreedOnTwice(Replies replies) throws IOException {
    try (RawClient client = hello()) {
      client.agree(replies).agree(replies).abort();
    }
  }

  @Test
  void extendedHeadersImplyStructuredRepliesAndExcludeExportName() throws IOException {
    int structured = RawClient.STRUCTURED_REPLY;
    try (RawClient client = hello()) {
      client.agree(Replies.STRUCTURED).agree(Replies.EXTENDED).option(structured);
      client.expectError(structured, RawClient.ERR_EXT_HEADER_REQD);
      client.option(RawClient.EXPORT_NAME, name()).expectEnd();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void theContextIsListedByWildcardAndSelectedByName(Replies replies) throws IOException {
    int list = RawClient.LIST_META_CONTEXT;
    int set = RawClient.SET_META_CONTEXT;
    try (RawClient client = hello()) {
      for (int option : new int[] {list, set}) {
        client.option(option, RawClient.contextData(served().name(), CONTEXT));
        client.expectError(option, RawClient.ERR_INVALID);
      }
      client.agree(replies);
      String name = served().name();
      String listed = "0 " + CONTEXT;
      List<String> all =
          storage == Storage.BITMAP ? List.of(listed, "0 qemu:dirty-bitmap:day") : List.of(listed);
      assertThat(client.listContexts(name)).isEqualTo(all);
      assertThat(client.listContexts(name, "base:", "qemu:")).isEqualTo(all);
      assertThat(client.listContexts(name, "base:")).containsExactly(listed);
      assertThat(client.listContexts(name, CONTEXT)).containsExactly(listed);
      assertThat(client.listContexts(name, "base:", "x:y", CONTEXT, CONTEXT))
          .containsExactly(listed);
      for (String query :
          List.of("", "base", "base:alloc", CONTEXT + "2", "Base:", ":", "qemu:dirty-bitmap:x")) {
        assertThat(client.listContexts(name, query)).as(query).isEmpty();
      }
      assertThat(client.selectContexts(name)).isEmpty();
      assertThat(client.selectContexts(name, "base:", "qemu:", "x-y:z", "nocolon")).isEmpty();
      assertThat(client.selectContexts(name, "x:", CONTEXT, CONTEXT, "base:"))
          .containsExactly(RawClient.CONTEXT + " " + CONTEXT);
      assertThat(client.listContexts(name, "x:")).as("which changes no selection").isEmpty();
      try (CheckedClient checked = CheckedClient.go(client, replies, served().name())) {
        assertThat(checked.status(0, 0, UNIT)).isNotEmpty();
        checked.disconnect();
      }
    }
  }
}
