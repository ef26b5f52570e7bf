package nbd.conformance;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.channels.ByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import nbd.file.DirectoryBackend;
import nbd.file.FileSettings;
import nbd.memory.MemoryBackend;
import nbd.server.TestServer;
import nbd.server.TlsPolicy;
import nbd.storage.Backend;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.Leave;
import nbd.testing.Log;
import nbd.testing.Pace;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import nbd.testing.TestCertificates;
import nbd.tls.TlsClient;
import nbd.tls.TlsServer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.tinylog.Level;

/**
 * The ways in which NBD servers have broken before a client's first request, with clients that
 * leave at any byte: items 1 to 8 of the project's list of them, in its order, and the index of
 * their tests. {@link WaysRequestsBrokeTest} has the others.
 */
final class WaysHandshakesBrokeTest extends BreakingCases {
  /** The data of the longest INFO: a name of 4096 bytes and 65,535 requests. */
  private static final int LONGEST_DATA = 4 + 4096 + 2 + 2 * 65_535;

  private static final int STRUCTURED_REPLY = RawClient.STRUCTURED_REPLY;
  private static final int LIST_META_CONTEXT = RawClient.LIST_META_CONTEXT;
  private static final int SET_META_CONTEXT = RawClient.SET_META_CONTEXT;
  private static final int EXTENDED_HEADERS = RawClient.EXTENDED_HEADERS;

  /** Tests elsewhere that belong to an item, by its number. */
  @ParameterizedTest
  @CsvSource(
      textBlock =
          """
          1, nbd.server.GoneClientTest, aPayloadThatArrivesInPartIsNeverWritten
          1, nbd.server.GoneClientTest, aHalfClosedClientStillGetsItsReplies
          1, nbd.server.GoneClientTest, aClientThatDoesNotWaitForItsAbortHarmsNothing
          1, nbd.server.GoneClientTest, writesThatHaveNotBegunWhenTheClientIsGoneDoNotBegin
          2, nbd.server.HandshakeTimeoutTest, aSilentClientIsDroppedAfterTheTimeout
          2, nbd.server.HandshakeTimeoutTest, aClientThatIsSlowOnPurposeIsDroppedAfterTheTimeout
          3, nbd.conformance.HandshakeConformanceTest, \
             exportNameEntersWithSizeAndFlagsAndZeroesUnlessRefused
          3, nbd.conformance.HandshakeConformanceTest, \
             goRepeatsWhatInfoToldFromTheSameHandleAndEntersWithoutZeroes
          3, nbd.conformance.HandshakeConformanceTest, \
             withoutFixedNewstyleEveryOtherOptionIsTheEnd
          4, nbd.conformance.HandshakeConformanceTest, unknownOptionsAreUnsupportedAndTheNextParses
          5, nbd.server.ExportNamesTest, theLongestNamesAreServed
          6, nbd.conformance.HandshakeConformanceTest, theContextIsListedByWildcardAndSelectedByName
          7, nbd.conformance.HandshakeConformanceTest, abortIsAcknowledgedWhateverItBrings
          7, nbd.conformance.HandshakeConformanceTest, theFlagsFollowTheOptionsSinceAnInfo
          8, nbd.server.StartTlsTest, whereTlsIsRequiredNothingElseIsAnsweredBefore
          8, nbd.server.StartTlsTest, whereTlsIsRequiredExportNameIsTheEnd
          8, nbd.server.StartTlsTest, startTlsWithDataOrTwiceIsInvalid
          8, nbd.server.StartTlsTest, whatComesBehindStartTlsIsNeverTakenAsTheClients
          8, nbd.server.StartTlsTest, aStalledTlsHandshakeEndsWithTheTimeout
          """)
  void theTestsElsewhereExist(int item, String type, String test) throws ClassNotFoundException {
    assertThat(item).isBetween(1, 8);
    assertIsTest(type, test);
  }

  // 1. Disconnect after every byte of the handshake and of each request; reset while a reply is
  // being sent; half-close.

  private static Stream<Arguments> transportsAnd(Object... values) {
    return Stream.of(values)
        .flatMap(value -> Stream.of(Arguments.of(false, value), Arguments.of(true, value)));
  }

  static Stream<Arguments> transportsAndWays() {
    return transportsAnd((Object[]) Leave.values());
  }

  static Stream<Arguments> transportsAndReplies() {
    return transportsAnd((Object[]) Replies.values());
  }

  private static byte[] handshake() {
    return Bytes.of()
        .u32(3)
        .raw(RawClient.optionBytes(RawClient.LIST))
        .raw(RawClient.optionBytes(STRUCTURED_REPLY))
        .raw(RawClient.optionBytes(LIST_META_CONTEXT, RawClient.contextData("")))
        .raw(RawClient.optionBytes(EXTENDED_HEADERS))
        .raw(RawClient.optionBytes(SET_META_CONTEXT, RawClient.contextData("", "base:allocation")))
        .raw(RawClient.optionBytes(RawClient.STARTTLS))
        .raw(RawClient.optionBytes(RawClient.OPT_INFO, RawClient.infoData("", 1, 3)))
        .raw(RawClient.optionBytes(RawClient.GO, RawClient.infoData("", 3)))
        .toArray();
  }

  @ParameterizedTest
  @MethodSource("transportsAndWays")
  void item1ClientsLeaveAfterEveryByteOfTheHandshake(boolean tcp, Leave way) throws IOException {
    byte[] all = handshake();
    watch(TestServer.with(new MemoryBackend(SIZE)).tcp(tcp).start());
    for (int length = 0; length <= all.length; length++) {
      RawClient client = connect();
      client.send(Arrays.copyOf(all, length));
      way.now(client);
    }
  }

  @ParameterizedTest
  @MethodSource("transportsAndReplies")
  void item1ClientsLeaveAfterEveryByteOfEachRequest(boolean tcp, Replies replies)
      throws IOException {
    TestServer server = watch(TestServer.with(new MemoryBackend(SIZE)).tcp(tcp).start());
    byte[] data = Bytes.random(1, 64);
    server.witness().write(0, data);
    for (Leave way : Leave.values()) {
      for (int type : new int[] {0, 1, 2, 3, 4, 5, 6, 7, 99}) {
        boolean writes = type == 1 || type == 4 || type == 6;
        byte[] request = request(replies, type);
        for (int sent = 0; sent <= request.length - (writes ? 1 : 0); sent++) {
          CheckedClient talk = enter(replies);
          talk.raw().send(Arrays.copyOf(request, sent));
          way.now(talk.raw());
        }
      }
    }
    assertThat(server.witness().read(0, 64)).as("nothing was done in part").isEqualTo(data);
  }

  /** The client's buffer is small, so that the server sends for a while. */
  @ParameterizedTest
  @MethodSource("transportsAndReplies")
  void item1ClientsLeaveWhileRepliesAreSent(boolean tcp, Replies replies) throws IOException {
    TestServer server = watch(TestServer.with(new MemoryBackend(SIZE)).tcp(tcp).start());
    for (Leave way : Leave.values()) {
      for (int taken : new int[] {0, 1, 19, 20, 33, 5000, 300_000}) {
        RawClient narrow = RawClient.connectNarrow(server.address());
        clients.add(narrow);
        CheckedClient client = CheckedClient.enter(narrow, replies, "");
        for (int i = 0; i < 5; i++) {
          client.send(0, RawClient.READ, 0, 4 << 20);
          client.send(0, RawClient.READ, 0, 1 << 16);
        }
        narrow.take(taken);
        way.now(narrow);
      }
    }
  }

  // 2. Silence, slowness, and a thousand of both.

  /** They hang at four places of the handshake; in the end the server stops in spite of them. */
  @Test
  void item2AThousandIdleHandshakesDisturbNobodyAndTheServerStops() throws Exception {
    TestServer server = serveMemory();
    CheckedClient working = enter(Replies.STRUCTURED);
    for (int i = 0; i < 1000; i++) {
      RawClient idle = connect();
      switch (i % 4) {
        case 0 -> {}
        case 1 -> idle.greeting().send((byte) 0);
        case 2 -> idle.hello(3);
        default -> idle.hello(3).send(RawClient.optionHeader(RawClient.GO, 1000));
      }
      byte[] data = Bytes.random(i, 4096);
      working.write((long) i * 4096, data);
      assertThat(working.read((long) i * 4096, 4096)).isEqualTo(data);
    }
    working.disconnect();
    server.witness().disconnect();
    assertThat(server.stop(Duration.ofMinutes(2))).as("none had to be cut").isTrue();
    clients.get(3).expectEnd();
  }

  @Test
  void item2WhatArrivesByteByByteOrInRandomPiecesIsUnderstood() throws IOException {
    serveMemory();
    for (int seed = 0; seed < 20; seed++) {
      byte[] data = Bytes.random(seed, 3000);
      RawClient client = connect().pace(seed == 0 ? Pace.BYTE_BY_BYTE : Pace.random(seed));
      client.hello(3).option(RawClient.LIST).reply(RawClient.LIST);
      client.expectAck(RawClient.LIST).option(RawClient.GO, RawClient.infoData("", 0, 1, 2, 3));
      client.expectInfos(RawClient.GO);
      assertThat(client.write(seed, data).read(seed, data.length)).isEqualTo(data);
      client.disconnect();
    }
  }

  /** The timeout holds also while the server waits for the client to take its replies. */
  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void item2WhoTakesNoRepliesToItsOptionsIsDroppedByTheTimeout(boolean tcp) throws Exception {
    TestServer server =
        watch(
            TestServer.with(new MemoryBackend(SIZE))
                .tcp(tcp)
                .handshakeTimeout(Duration.ofSeconds(3))
                .start());
    RawClient client = connect().hello(3);
    byte[] unknown = RawClient.optionBytes(99);
    Bytes many = Bytes.of();
    for (int i = 0; i < 1000; i++) {
      many.raw(unknown);
    }
    boolean dropped = false;
    for (int i = 0; i < 10_000 && !dropped; i++) {
      try {
        client.send(many.toArray());
      } catch (IOException gone) {
        dropped = true;
      }
    }
    assertThat(dropped).isTrue();
    server.awaitHandles(1);
  }

  // 3. Wrong magics and flags.

  @Test
  void item3AWrongMagicEndsTheConnection() throws IOException {
    serveMemory();
    byte[] list = RawClient.optionBytes(RawClient.LIST);
    for (int i = 0; i < 8; i++) {
      byte[] wrong = list.clone();
      wrong[i] ^= 1;
      hello().send(wrong).expectEnd();
    }
    for (Replies replies : Replies.values()) {
      for (int i = 0; i < 4; i++) {
        byte[] wrong = request(replies, RawClient.READ);
        wrong[i] ^= 0x40;
        enter(replies).raw().send(wrong).expectEnd();
      }
      boolean wide = replies == Replies.EXTENDED;
      for (int magic : new int[] {0, 0x67446698, 0x668e33ef, wide ? 0x25609513 : 0x21e41c71}) {
        byte[] wrong = Arrays.copyOf(Bytes.of().u32(magic).toArray(), 32);
        enter(replies).raw().send(wrong).expectEnd();
      }
    }
  }

  @Test
  void item3UnknownClientFlagsEndTheConnection() throws IOException {
    serveMemory();
    for (int bit = 2; bit < 32; bit++) {
      connect().hello(3 | 1 << bit).expectEnd();
      connect().hello(1 << bit).expectEnd();
    }
    connect().hello(-1).expectEnd();
  }

  // 4. Lengths of options.

  @ParameterizedTest
  @ValueSource(ints = {0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x7fffffff, -1})
  void item4OptionsOfEveryLength(int option) throws IOException {
    serveMemory();
    RawClient client = hello();
    boolean known = option >= 3 && option <= 11 && option != 4;
    for (int length : new int[] {LONGEST_DATA - 1, LONGEST_DATA, LONGEST_DATA + 1, 1 << 20}) {
      boolean tooBig = length > LONGEST_DATA && option != RawClient.STARTTLS;
      int lookedAt = known ? RawClient.ERR_INVALID : RawClient.ERR_UNSUP;
      client.option(option, new byte[length]);
      client.expectError(option, tooBig ? RawClient.ERR_TOO_BIG : lookedAt);
    }
    client.option(RawClient.LIST);
    assertThat(client.reply(RawClient.LIST).type()).isEqualTo(RawClient.SERVER);
    client.expectAck(RawClient.LIST);
    for (long length : new long[] {(32L << 20) + 1, 0x7fffffffL, 0x80000000L, 0xffffffffL}) {
      hello().send(RawClient.optionHeader(option, length)).expectEnd();
    }
  }

  @Test
  void item4TheLongestDataIsDroppedAndEndlessDataOfAnAbortOrANameIsTheEnd() throws IOException {
    serveMemory();
    RawClient client = hello().option(99, new byte[32 << 20]);
    client.expectError(99, RawClient.ERR_TOO_BIG);
    client.abort();
    RawClient leaving = hello().send(RawClient.optionHeader(RawClient.ABORT, 0xffffffffL));
    leaving.halfClose().expectEnd();
    hello().send(RawClient.optionHeader(RawClient.EXPORT_NAME, 0xffffffffL)).expectEnd();
  }

  @Test
  void item4AnOptionInsideTheDataOfAnotherIsData() throws IOException {
    serveMemory();
    RawClient client = hello();
    byte[] inner = RawClient.optionBytes(RawClient.ABORT);
    client.option(99, inner).expectError(99, RawClient.ERR_UNSUP);
    for (int option = RawClient.OPT_INFO; option <= EXTENDED_HEADERS; option++) {
      client.option(option, inner).expectError(option, RawClient.ERR_INVALID);
    }
    client.abort();
  }

  @Test
  void item4EndlessUnknownOptionsAreEachAnswered() throws IOException {
    serveMemory();
    RawClient client = hello();
    for (int i = 0; i < 5000; i++) {
      client.option(1000 + i, new byte[i % 50]);
      client.expectError(1000 + i, RawClient.ERR_UNSUP);
    }
    client.abort();
  }

  // 5. Names, where they are files' names.

  /**
   * Returns bytes that name no file in the directory, and must not be made into a name that does.
   */
  private static List<byte[]> strangeNames() {
    List<byte[]> names = new ArrayList<>();
    for (int length : new int[] {0, 254, 255, 256, 257, 4094, 4095, 4096}) {
      names.add("x".repeat(length).getBytes(UTF_8));
    }
    for (String name :
        List.of(
            "../secret",
            "..",
            ".",
            "/",
            "./disk",
            "disk/",
            "/etc/passwd",
            "sub/../disk",
            "disk/../disk",
            "link",
            "pipe/..",
            "\\..\\secret",
            "disk ",
            "DISK",
            "\n",
            "\u001b[2J",
            "%s%n",
            "☃")) {
      names.add(name.getBytes(UTF_8));
    }
    return names;
  }

  private static List<byte[]> invalidNames() {
    return List.of(
        "disk\0".getBytes(UTF_8),
        new byte[] {0},
        new byte[] {(byte) 0xff},
        new byte[] {(byte) 0xc3, 0x28},
        new byte[] {(byte) 0xed, (byte) 0xa0, (byte) 0x80},
        new byte[4097],
        "x".repeat(5000).getBytes(UTF_8),
        "x".repeat(100_000).getBytes(UTF_8));
  }

  private TestServer serveDirectory() throws IOException {
    Path exported = Files.createDirectory(directory.resolve("exported"));
    Files.write(directory.resolve("secret"), new byte[512]);
    Files.write(exported.resolve("disk"), new byte[4096]);
    Files.createSymbolicLink(exported.resolve("link"), Path.of("../secret"));
    Backend backend = DirectoryBackend.open(exported, FileSettings.DEFAULT);
    return watch(TestServer.with(backend).ownNames("disk").start());
  }

  private static byte[] named(byte[] name, byte... rest) {
    return Bytes.of().u32(name.length).raw(name).raw(rest).toArray();
  }

  @Test
  void item5NamesThatAreNoFilesAreUnknownAndNoNameIsInvalid() throws IOException {
    serveDirectory();
    RawClient client = hello().option(STRUCTURED_REPLY).expectAck(STRUCTURED_REPLY);
    for (byte[] name : strangeNames()) {
      for (int option : new int[] {RawClient.OPT_INFO, RawClient.GO}) {
        client.option(option, named(name, (byte) 0, (byte) 0));
        String sentence = client.expectError(option, RawClient.ERR_UNKNOWN);
        assertThat(sentence).doesNotContain("\u001b", "\n").hasSizeLessThan(300);
      }
      client.option(SET_META_CONTEXT, named(name, new byte[4]));
      RawClient.Reply reply = client.reply(SET_META_CONTEXT);
      assertThat(reply.type()).isIn(RawClient.ACK, RawClient.ERR_UNKNOWN);
      hello().option(RawClient.EXPORT_NAME, name).expectEnd();
    }
    for (byte[] name : invalidNames()) {
      for (int option : new int[] {RawClient.OPT_INFO, RawClient.GO}) {
        client.option(option, named(name, (byte) 0, (byte) 0));
        client.expectError(option, RawClient.ERR_INVALID);
      }
      for (int option : new int[] {LIST_META_CONTEXT, SET_META_CONTEXT}) {
        client.option(option, named(name, new byte[4]));
        client.expectError(option, RawClient.ERR_INVALID);
      }
      hello().send(RawClient.optionBytes(RawClient.EXPORT_NAME, name)).expectEnd();
    }
    client.option(RawClient.GO, RawClient.infoData("disk"));
    client.expectInfos(RawClient.GO);
    client.disconnect();
    assertThat(Log.at(Level.WARN))
        .isNotEmpty()
        .allSatisfy(line -> assertThat(line).doesNotContain("\u001b", "\n").hasSizeLessThan(500));
  }

  @ParameterizedTest
  @ValueSource(ints = {RawClient.OPT_INFO, RawClient.GO})
  void item5LengthsAndCountsThatDoNotMatchAreInvalid(int option) throws IOException {
    serveMemory();
    byte[][] malformed = {
      {},
      {0},
      Bytes.of().u32(0).toArray(),
      Bytes.of().u32(0).raw((byte) 0).toArray(),
      Bytes.of().u32(0).u16(0).u16(0).toArray(),
      Bytes.of().u32(0).u16(1).toArray(),
      Bytes.of().u32(0).u16(0xffff).u16(0).toArray(),
      Bytes.of().u32(0).u16(1).u16(0).raw((byte) 0).toArray(),
      Bytes.of().u32(1).u16(0).toArray(),
      Bytes.of().u32(2).u16(0).toArray(),
      Bytes.of().u32(4).text("disk").toArray(),
      Bytes.of().u32(3).text("disk").u16(0).toArray(),
      Bytes.of().u32(5).text("disk").u16(0).toArray(),
      Bytes.of().u32(6).text("disk").u16(0).toArray(),
      Bytes.of().u32(0x7fffffff).text("disk").u16(0).toArray(),
      Bytes.of().u32(0x80000000L).text("disk").u16(0).toArray(),
      Bytes.of().u32(0xffffffffL).text("disk").u16(0).toArray(),
      Bytes.of().u32(4).text("disk").u16(2).u16(0).toArray(),
    };
    RawClient client = hello();
    for (byte[] data : malformed) {
      client.option(option, data).expectError(option, RawClient.ERR_INVALID);
    }
    client.abort();
  }

  /**
   * The requests are all numbers up to 65,534: unknown ones are ignored, the others answered once.
   */
  @ParameterizedTest
  @MethodSource("transportsAndWays")
  void item5AClientIsGoneWhile65535RequestsAreAnswered(boolean tcp, Leave way) throws IOException {
    int[] requests = new int[65_535];
    Arrays.setAll(requests, i -> 65_534 - i);
    watch(TestServer.with(new MemoryBackend(SIZE)).tcp(tcp).start());
    for (int i = 0; i < 5; i++) {
      RawClient client = hello();
      client.option(RawClient.OPT_INFO, RawClient.infoData("", requests));
      client.option(RawClient.GO, RawClient.infoData("", requests));
      way.now(client);
    }
    RawClient patient = hello().option(RawClient.OPT_INFO, RawClient.infoData("", requests));
    assertThat(patient.expectInfos(RawClient.OPT_INFO)).hasSize(3);
  }

  // 6. Meta contexts.

  @Test
  void item6QueriesThatOverrunTheirDataAreInvalid() throws IOException {
    serveMemory();
    byte[] header = RawClient.optionBytes(RawClient.ABORT);
    byte[][] malformed = {
      {},
      {0, 0, 0},
      Bytes.of().u32(0).toArray(),
      Bytes.of().u32(0).u16(0).toArray(),
      Bytes.of().u32(1).u32(0).toArray(),
      Bytes.of().u32(0x80000000L).u32(0).toArray(),
      Bytes.of().u32(0xffffffffL).u32(0).toArray(),
      Bytes.of().u32(0).u32(0xffffffffL).toArray(),
      Bytes.of().u32(0).u32(0xffffffffL).u32(0).toArray(),
      Bytes.of().u32(0).u32(0xffffffffL).u32(5).text("base:").toArray(),
      Bytes.of().u32(0).u32(0x40000001L).u32(0).toArray(),
      Bytes.of().u32(0).u32(1).toArray(),
      Bytes.of().u32(0).u32(2).u32(0).toArray(),
      Bytes.of().u32(0).u32(1).u32(6).text("base:").toArray(),
      Bytes.of().u32(0).u32(1).u32(0xffffffffL).text("base:").toArray(),
      Bytes.of().u32(0).u32(1).u32(4097).raw(new byte[4097]).toArray(),
      Bytes.of().u32(0).u32(2).u32(5).text("base:").toArray(),
      Bytes.of().u32(0).u32(0).raw(header).toArray(),
      Bytes.of().u32(0).u32(1).u32(5).text("base:").raw(header).toArray(),
    };
    for (int chunks : new int[] {STRUCTURED_REPLY, EXTENDED_HEADERS}) {
      RawClient client = hello().option(chunks).expectAck(chunks);
      for (byte[] data : malformed) {
        for (int option : new int[] {LIST_META_CONTEXT, SET_META_CONTEXT}) {
          client.option(option, data).expectError(option, RawClient.ERR_INVALID);
        }
      }
      client.option(SET_META_CONTEXT, RawClient.contextData("", "nocolon", "x-y:z", ":", ""));
      client.expectAck(SET_META_CONTEXT);
      client.abort();
    }
  }

  @Test
  void item6ManyQueriesAndThoseThatAreNotTextAreIgnoredAndTooManyAreTooBig() throws IOException {
    serveMemory();
    RawClient client = hello().agree(Replies.STRUCTURED);
    Bytes many = Bytes.of().u32(0).u32(33_000);
    for (int i = 0; i < 33_000; i++) {
      many.u32(0);
    }
    client.option(SET_META_CONTEXT, many.toArray()).expectAck(SET_META_CONTEXT);
    client.option(SET_META_CONTEXT, new byte[150_000]);
    client.expectError(SET_META_CONTEXT, RawClient.ERR_TOO_BIG);
    Bytes noText = Bytes.of().u32(0).u32(2).u32(3).raw((byte) 0xff, (byte) 0, (byte) 0xc3);
    client.option(SET_META_CONTEXT, noText.u32(15).text("base:allocation").toArray());
    assertThat(client.reply(SET_META_CONTEXT).type()).isEqualTo(RawClient.META_CONTEXT);
    client.expectAck(SET_META_CONTEXT).abort();
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void item6ASelectionIsForItsExportAndEndsWithTheNext(Replies replies) throws IOException {
    watch(TestServer.with(new MemoryBackend(SIZE)).names("", "b").start());
    byte[] overrun = Bytes.of().u32(0).u32(1).u32(9).toArray();
    for (int i = 0; i < 6; i++) {
      RawClient raw = hello().agree(replies).selectAllocation("");
      switch (i) {
        case 0, 1 -> {
          // Listing ends no selection.
          raw.option(LIST_META_CONTEXT, RawClient.contextData("nobody"));
          raw.expectError(LIST_META_CONTEXT, RawClient.ERR_UNKNOWN);
        }
        case 2 -> {
          raw.option(SET_META_CONTEXT, overrun);
          raw.expectError(SET_META_CONTEXT, RawClient.ERR_INVALID);
        }
        case 3 -> {
          raw.option(SET_META_CONTEXT, RawClient.contextData("nobody", "base:allocation"));
          raw.expectError(SET_META_CONTEXT, RawClient.ERR_UNKNOWN);
        }
        case 4 ->
            raw.option(SET_META_CONTEXT, RawClient.contextData("")).expectAck(SET_META_CONTEXT);
        default -> raw.selectAllocation("b");
      }
      CheckedClient client = CheckedClient.go(raw, replies, i == 1 ? "b" : "");
      client.call(i == 0 ? 0 : EINVAL, 0, RawClient.BLOCK_STATUS, 0, 512);
      client.disconnect();
    }
  }

  // 7. The order of options, and data where there is none.

  /** The refused options change nothing, either. */
  @Test
  void item7DataOnOptionsThatHaveNone() throws IOException {
    serveMemory();
    RawClient client = hello();
    for (int length : new int[] {1, 4, 16, 70_000}) {
      for (int option :
          new int[] {RawClient.LIST, RawClient.STARTTLS, STRUCTURED_REPLY, EXTENDED_HEADERS}) {
        client.option(option, new byte[length]).expectError(option, RawClient.ERR_INVALID);
      }
    }
    client.option(LIST_META_CONTEXT, RawClient.contextData(""));
    client.expectError(LIST_META_CONTEXT, RawClient.ERR_INVALID);
    client.go("");
    client.read(0, 10);
    client.disconnect();
  }

  @Test
  void item7GoOfAnotherNameThanInfoAndAnOptionAfterGo() throws IOException {
    TestServer server = watch(TestServer.with(new MemoryBackend(SIZE)).names("", "b").start());
    RawClient client = hello();
    for (String name : new String[] {"b", "", "b"}) {
      client.option(RawClient.OPT_INFO, RawClient.infoData(name));
      client.expectInfos(RawClient.OPT_INFO);
      assertThat(server.contract().openHandles()).as("the witness's and this").isEqualTo(2);
    }
    client.option(RawClient.GO, RawClient.infoData("nobody"));
    client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
    client.option(RawClient.GO, RawClient.infoData("", 1));
    List<RawClient.Reply> infos = client.expectInfos(RawClient.GO);
    assertThat(infos.getLast().data()).as("the name").isEqualTo(new byte[] {0, 1});
    assertThat(server.contract().openHandles()).isEqualTo(2);
    client.read(0, 1);
    client.option(RawClient.LIST, new byte[12]).expectEnd();
  }

  // 8. TLS.

  private TestServer serveTls(boolean required) throws Exception {
    TlsServer tls = TlsServer.load(TestCertificates.GOOD, false);
    return watch(
        TestServer.with(new MemoryBackend(SIZE))
            .tls(new TlsPolicy(Optional.of(tls), required))
            .start());
  }

  private static ByteChannel tls(ByteChannel plain) throws IOException {
    return TlsClient.load(Optional.of(TestCertificates.GOOD), true).client(plain, "localhost");
  }

  @Test
  void item8WhatWasSelectedBeforeTlsIsForgotten() throws Exception {
    serveTls(false);
    for (Replies replies : List.of(Replies.STRUCTURED, Replies.EXTENDED)) {
      RawClient raw = hello().agree(replies).selectAllocation("");
      raw.option(RawClient.OPT_INFO, RawClient.infoData(""));
      raw.expectInfos(RawClient.OPT_INFO);
      raw.startTls(WaysHandshakesBrokeTest::tls).agree(replies);
      CheckedClient client = CheckedClient.go(raw, replies, "");
      client.call(EINVAL, 0, RawClient.BLOCK_STATUS, 0, 512);
      client.disconnect();
      // Without the option again, replies are simple.
      RawClient simple = hello().agree(replies).startTls(WaysHandshakesBrokeTest::tls);
      simple.go("");
      simple.read(0, 100_000);
      simple.disconnect();
      RawClient byName = hello().agree(replies).startTls(WaysHandshakesBrokeTest::tls);
      byName.option(RawClient.EXPORT_NAME).take(10);
      byName.read(0, 100);
      byName.disconnect();
    }
  }

  @Test
  void item8OptionsBehindStartTls() throws Exception {
    serveTls(false);
    byte[] starttls = RawClient.optionBytes(RawClient.STARTTLS);
    for (int option : new int[] {3, 5, 6, 7, 8, 11}) {
      byte[] both = Bytes.of().raw(starttls).raw(RawClient.optionBytes(option)).toArray();
      hello().send(both).expectEnd();
    }
  }

  @Test
  void item8JunkInTheTlsHandshake() throws Exception {
    serveTls(false);
    for (int seed = 0; seed < 20; seed++) {
      RawClient client = hello().option(RawClient.STARTTLS).expectAck(RawClient.STARTTLS);
      byte[] junk = Bytes.random(seed, 1000);
      if (seed % 2 == 0) {
        System.arraycopy(new byte[] {0x16, 3, 1, 2, 0, 1}, 0, junk, 0, 6);
      }
      client.send(junk).halfClose();
      untilEnd(client);
    }
  }

  /** Takes bytes (TLS may send the reason for its end) until the server ends the connection. */
  private static void untilEnd(RawClient client) throws IOException {
    try {
      while (true) {
        client.take(1);
      }
    } catch (AssertionError ended) {
      assertThat(ended).hasMessageContaining("the end came");
    } catch (IOException reset) {
      assertThat(reset).hasMessageContaining("reset");
    }
  }

  /** Clients end without close_notify, in the middle of requests and of replies. */
  @ParameterizedTest
  @EnumSource
  void item8TheEndWithoutCloseNotify(Leave way) throws Exception {
    serveTls(false);
    for (int payload : new int[] {0, 5000, 1 << 20}) {
      RawClient client = hello().startTls(WaysHandshakesBrokeTest::tls);
      client.option(RawClient.GO, RawClient.infoData(""));
      client.expectInfos(RawClient.GO);
      client.write(0, new byte[100]);
      client.request(0, RawClient.READ, 1, 0, 8 << 20);
      client.request(0, RawClient.WRITE, 2, 0, 2 << 20, new byte[payload]);
      way.now(client);
      client.close();
    }
  }
}
