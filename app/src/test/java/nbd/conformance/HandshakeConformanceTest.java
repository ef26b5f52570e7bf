package nbd.conformance;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import nbd.protocol.TransmissionFlag;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.RawClient;
import nbd.testing.RawClient.Reply;
import nbd.testing.Replies;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Each option, and each reply to one. TLS is tested in {@code nbd.server.StartTlsTest}: it does not
 * meet the storage.
 */
final class HandshakeConformanceTest extends EveryStorage {
  private static final int STRUCTURED_REPLY = 8;
  private static final int LIST_META_CONTEXT = 9;
  private static final int SET_META_CONTEXT = 10;
  private static final int EXTENDED_HEADERS = 11;
  private static final int META_CONTEXT = 4;
  private static final int ERR_EXT_HEADER_REQD = 0x8000000a;

  private static byte[] name() {
    return served().name().getBytes(UTF_8);
  }

  private static RawClient hello() throws IOException {
    return served().server().connect().hello(3);
  }

  private static void end(RawClient client) throws IOException {
    client.option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
  }

  private static void go(RawClient client) throws IOException {
    client.option(RawClient.GO, RawClient.infoData(served().name()));
    RawClient.export(client.expectInfos(RawClient.GO));
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

  @Test
  void exportNameOfAnotherNameIsTheEnd() throws IOException {
    try (RawClient client = hello()) {
      client.option(RawClient.EXPORT_NAME, "nobody".getBytes(UTF_8)).expectEnd();
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 5000})
  void abortIsAcknowledgedWhateverItBrings(int length) throws IOException {
    try (RawClient client = hello()) {
      client.option(RawClient.ABORT, new byte[length]).expectAck(RawClient.ABORT).expectEnd();
    }
  }

  @Test
  void listNamesTheExportAndTakesNoData() throws IOException {
    try (RawClient client = hello()) {
      client.option(RawClient.LIST);
      Reply server = client.reply(RawClient.LIST);
      assertThat(server.type()).isEqualTo(RawClient.SERVER);
      assertThat(server.data()).startsWith(Bytes.of().u32(name().length).raw(name()).toArray());
      client.expectAck(RawClient.LIST);
      client.option(RawClient.LIST, (byte) 0);
      client.expectError(RawClient.LIST, RawClient.ERR_INVALID);
      end(client);
    }
  }

  /** PEEK_EXPORT, which was withdrawn, and numbers that nobody has given a meaning. */
  @ParameterizedTest
  @ValueSource(ints = {0, 4, 12, 99, 0x7fffffff, 0x80000000, -1})
  void whatIsNoOptionIsUnsupportedAndTheNextParses(int option) throws IOException {
    try (RawClient client = hello()) {
      client.option(option, Bytes.random(option, 40)).expectError(option, RawClient.ERR_UNSUP);
      go(client);
      serves(client);
    }
  }

  @Test
  void withoutTlsStartTlsIsRefusedByPolicy() throws IOException {
    try (RawClient client = hello()) {
      client.option(RawClient.STARTTLS);
      client.expectError(RawClient.STARTTLS, RawClient.ERR_POLICY);
      go(client);
      serves(client);
    }
  }

  /** Every piece of information that there is, asked for and unasked, and what is unknown. */
  @ParameterizedTest
  @ValueSource(ints = {RawClient.OPT_INFO, RawClient.GO})
  void infoAndGoTellWhatTheyAreAskedFor(int option) throws IOException {
    try (RawClient client = hello()) {
      client.option(option, RawClient.infoData(served().name(), 0, 1, 2, 3, 4, 0xffff, 1));
      List<Reply> infos = client.expectInfos(option);
      assertThat(infos.stream().map(RawClient::infoType)).containsExactlyInAnyOrder(0, 1, 2, 3);
      for (Reply info : infos) {
        ByteBuffer data = ByteBuffer.wrap(info.data());
        switch (data.getShort()) {
          case 0 -> assertThat(data.getLong()).isEqualTo(Storage.SIZE);
          case 1 -> assertThat(data).isEqualTo(ByteBuffer.wrap(name()));
          case 2 -> assertThat(data).isEqualTo(ByteBuffer.wrap("for tests".getBytes(UTF_8)));
          default -> {
            int minimum = data.getInt();
            int preferred = data.getInt();
            assertThat(Integer.bitCount(minimum)).isOne();
            assertThat(minimum).isBetween(1, 1 << 16);
            assertThat(Integer.bitCount(preferred)).isOne();
            assertThat(preferred).isGreaterThanOrEqualTo(Math.max(minimum, 512));
            assertThat(data.getInt()).as("maximum").isBetween(1 << 20, 32 << 20);
          }
        }
      }
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {RawClient.OPT_INFO, RawClient.GO})
  void whoAsksForNothingIsToldOfTheExportAlone(int option) throws IOException {
    try (RawClient client = hello()) {
      client.option(option, RawClient.infoData(served().name()));
      assertThat(RawClient.export(client.expectInfos(option)).size()).isEqualTo(Storage.SIZE);
    }
  }

  @Test
  void goRepeatsWhatInfoToldAndEntersWithoutZeroes() throws IOException {
    try (RawClient client = served().server().connect()) {
      client.hello(1).option(RawClient.OPT_INFO, RawClient.infoData(served().name()));
      RawClient.Export told = RawClient.export(client.expectInfos(RawClient.OPT_INFO));
      client.option(RawClient.GO, RawClient.infoData(served().name()));
      assertThat(RawClient.export(client.expectInfos(RawClient.GO))).isEqualTo(told);
      serves(client);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {RawClient.OPT_INFO, RawClient.GO})
  void anotherNameIsUnknownAndAMalformedQuestionInvalid(int option) throws IOException {
    try (RawClient client = hello()) {
      client.option(option, RawClient.infoData("nobody"));
      client.expectError(option, RawClient.ERR_UNKNOWN);
      client.option(option, Bytes.of().u32(9).u16(0).toArray());
      client.expectError(option, RawClient.ERR_INVALID);
      go(client);
      serves(client);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {STRUCTURED_REPLY, EXTENDED_HEADERS})
  void chunksAreAgreedOnByAnOptionWithoutData(int option) throws IOException {
    try (RawClient client = hello()) {
      client.option(option, (byte) 1).expectError(option, RawClient.ERR_INVALID);
      client.option(option).expectAck(option);
      client.option(option).expectAck(option);
      end(client);
    }
  }

  @Test
  void extendedHeadersImplyStructuredRepliesAndExcludeExportName() throws IOException {
    try (RawClient client = hello()) {
      client.option(EXTENDED_HEADERS).expectAck(EXTENDED_HEADERS);
      client.option(STRUCTURED_REPLY).expectError(STRUCTURED_REPLY, ERR_EXT_HEADER_REQD);
      client.option(RawClient.EXPORT_NAME, name()).expectEnd();
    }
  }

  private static List<String> contexts(RawClient client, int option, String... queries)
      throws IOException {
    client.option(option, RawClient.contextData(served().name(), queries));
    List<String> names = new ArrayList<>();
    for (Reply reply = client.reply(option);
        reply.type() != RawClient.ACK;
        reply = client.reply(option)) {
      assertThat(reply.type()).as(RawClient.text(reply)).isEqualTo(META_CONTEXT);
      names.add(RawClient.text(reply).substring(4));
    }
    return names;
  }

  @ParameterizedTest
  @ValueSource(ints = {STRUCTURED_REPLY, EXTENDED_HEADERS})
  void theContextIsListedByWildcardAndSelectedByName(int chunks) throws IOException {
    try (RawClient client = hello()) {
      for (int option : new int[] {LIST_META_CONTEXT, SET_META_CONTEXT}) {
        client.option(option, RawClient.contextData(served().name(), "base:allocation"));
        client.expectError(option, RawClient.ERR_INVALID);
      }
      client.option(chunks).expectAck(chunks);
      String context = "base:allocation";
      assertThat(contexts(client, LIST_META_CONTEXT)).containsExactly(context);
      assertThat(contexts(client, LIST_META_CONTEXT, "base:", "x:y")).containsExactly(context);
      assertThat(contexts(client, LIST_META_CONTEXT, "base:nothing", "x:", "y")).isEmpty();
      assertThat(contexts(client, SET_META_CONTEXT)).isEmpty();
      assertThat(contexts(client, SET_META_CONTEXT, "base:", "x:y")).isEmpty();
      assertThat(contexts(client, SET_META_CONTEXT, context, context)).containsExactly(context);
      byte[] overrun = Bytes.of().u32(name().length).raw(name()).u32(1).u32(9).toArray();
      client.option(SET_META_CONTEXT, overrun);
      client.expectError(SET_META_CONTEXT, RawClient.ERR_INVALID);
      end(client);
    }
  }

  /** The flags are the storage's, with those that depend on what was agreed on. */
  @ParameterizedTest
  @EnumSource
  void theFlagsAreThoseOfTheStorage(Replies replies) throws IOException {
    try (CheckedClient talk = served().enter(replies)) {
      Set<TransmissionFlag> told = EnumSet.noneOf(TransmissionFlag.class);
      for (TransmissionFlag flag : TransmissionFlag.values()) {
        if (talk.has(flag)) {
          told.add(flag);
        }
      }
      assertThat(talk.export().flags()).as("no bit without a name").isLessThan(1 << 13);
      assertThat(told).contains(TransmissionFlag.HAS_FLAGS).containsAll(storage.told());
      assertThat(told).as("what must not be told").noneMatch(storage.untold()::contains);
      assertThat(told).doesNotContain(TransmissionFlag.SEND_RESIZE);
      assertThat(told.contains(TransmissionFlag.SEND_DF)).isEqualTo(replies != Replies.SIMPLE);
      if (told.contains(TransmissionFlag.SEND_FAST_ZERO)) {
        assertThat(told).contains(TransmissionFlag.SEND_WRITE_ZEROES);
      }
      talk.disconnect();
    }
  }
}
