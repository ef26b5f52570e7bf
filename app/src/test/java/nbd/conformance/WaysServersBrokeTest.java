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
import java.util.EnumSet;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Stream;
import nbd.file.DirectoryBackend;
import nbd.file.FileSettings;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnSettings;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.TransmissionFlag;
import nbd.server.Server;
import nbd.server.TestServer;
import nbd.server.TlsPolicy;
import nbd.storage.Backend;
import nbd.storage.Capability;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.Answer;
import nbd.testing.CheckedClient.StatusExtent;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.Leave;
import nbd.testing.Log;
import nbd.testing.Pace;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import nbd.testing.Running;
import nbd.testing.TestCertificates;
import nbd.tls.TlsClient;
import nbd.tls.TlsServer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.junit.platform.commons.annotation.Testable;
import org.junit.platform.commons.support.AnnotationSupport;
import org.tinylog.Level;

/**
 * The ways in which NBD servers have broken, in the order of the project's list of them: the index
 * of the tests for each. After each test here the server lives, a connection opened before still
 * works, and descriptors, threads and memory are back where they were.
 */
@Timeout(120)
final class WaysServersBrokeTest {
  private static final int EIO = 5;
  private static final int EPERM = 1;
  private static final int EINVAL = 22;
  private static final int ENOSPC = 28;
  private static final int LONGEST = 32 << 20;
  private static final int SIZE = 2 * LONGEST;

  /** The data of the longest INFO: a name of 4096 bytes and 65,535 requests. */
  private static final int LONGEST_DATA = 4 + 4096 + 2 + 2 * 65_535;

  /** A longer WRITE is not drained. */
  private static final int DRAINED = 128 << 20;

  private static final int STRUCTURED_REPLY = RawClient.STRUCTURED_REPLY;
  private static final int LIST_META_CONTEXT = RawClient.LIST_META_CONTEXT;
  private static final int SET_META_CONTEXT = RawClient.SET_META_CONTEXT;
  private static final int EXTENDED_HEADERS = RawClient.EXTENDED_HEADERS;

  @TempDir private Path directory;

  private final List<RawClient> clients = new ArrayList<>();
  private long directBefore;
  private Optional<TestServer> running = Optional.empty();
  private Optional<Footprint> before = Optional.empty();

  /** Begins to watch a server, which is stopped and checked at the end. */
  private TestServer watch(TestServer server) {
    running = Optional.of(server);
    directBefore = Footprint.direct();
    before = Optional.of(Footprint.of(server));
    return server;
  }

  private TestServer serve(Backend backend) throws IOException {
    return watch(TestServer.of(backend));
  }

  private TestServer serveMemory() throws IOException {
    return serve(new MemoryBackend(SIZE));
  }

  /** A client that is gone at the end at the latest. */
  private RawClient connect() throws IOException {
    RawClient client = running.orElseThrow().connect();
    clients.add(client);
    return client;
  }

  private RawClient hello() throws IOException {
    return connect().hello(3);
  }

  private CheckedClient enter(Replies replies) throws IOException {
    return CheckedClient.enter(connect(), replies, "");
  }

  @AfterEach
  void everythingIsAsItWas() throws Exception {
    for (RawClient client : clients) {
      client.close();
    }
    if (running.isPresent()) {
      try (TestServer server = running.get()) {
        before.orElseThrow().awaitReturn(server, directBefore);
      }
    }
  }

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
          9, nbd.conformance.CommandConformanceTest, \
             everyLengthAtEveryOffsetIsServedOrAnsweredByTheTableOfErrors
          10, nbd.conformance.CommandConformanceTest, everyFlagOfEveryCommandIsTakenOrInvalid
          10, nbd.conformance.CommandConformanceTest, \
              everythingBeforeAGoodbyeIsDoneAndTheGoodbyeHasNoReply
          12, nbd.server.BlockStatusTest, aFragmentedImageIsToldInBoundedReplies
          12, nbd.file.FileSpaceTest, extentsOfAFragmentedFileAreExact
          13, nbd.server.StalledClientsTest, manyWhoNeverReadAndManyWhoStallInAPayloadDisturbNobody
          15, nbd.file.FileFlushTest, \
              aFlushThatFailedOnceFailsForEveryConnectionForEver
          15, nbd.multiconn.BrokenHandleTest, \
              answeredWritesThatNoFlushCoveredFailTheNextFlushOfEveryConnectionOnce
          """)
  void theTestsElsewhereExist(int item, String type, String test) throws ClassNotFoundException {
    assertThat(item).isBetween(1, 15);
    assertThat(Class.forName(type).getDeclaredMethods())
        .filteredOn(method -> method.getName().equals(test))
        .singleElement()
        .matches(method -> AnnotationSupport.isAnnotated(method, Testable.class));
  }

  /** What all of them rely on: what a client with a request in flight costs is seen. */
  @Test
  void whatAClientHoldsIsSeen() throws IOException {
    CountDownLatch begun = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    FakeBackend fake = new FakeBackend(4096);
    TestServer server = serve(fake);
    CheckedClient talk = enter(Replies.SIMPLE);
    fake.hook(
        call -> {
          begun.countDown();
          Eventually.await(go);
        });
    long cookie = talk.send(0, RawClient.READ, 0, 4096);
    Eventually.await(begun);
    Footprint now = Footprint.of(server);
    Footprint without = before.orElseThrow();
    assertThat(now.descriptors()).as("both sockets").isEqualTo(without.descriptors() + 2);
    assertThat(now.threads()).as("the client's and the request's").isEqualTo(without.threads() + 2);
    assertThat(now.handles()).isEqualTo(without.handles() + 1);
    assertThat(now.inFlight()).isGreaterThanOrEqualTo(4096);
    go.countDown();
    talk.await(0, cookie);
    talk.disconnect();
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

  /** Twelve bytes of everything, with their payload. */
  private static byte[] request(Replies replies, int type) {
    boolean wide = replies == Replies.EXTENDED;
    int length = type == RawClient.FLUSH ? 0 : 12;
    Bytes bytes =
        Bytes.of()
            .u32(wide ? 0x21e41c71 : 0x25609513)
            .u16(wide && type == RawClient.WRITE ? RawClient.PAYLOAD_LEN : 0)
            .u16(type)
            .u64(7)
            .u64(type == RawClient.FLUSH ? 0 : 4);
    return (wide ? bytes.u64(length) : bytes.u32(length))
        .raw(new byte[type == RawClient.WRITE ? 12 : 0])
        .toArray();
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
    assertThat(server.stop(Duration.ofSeconds(20))).as("none had to be cut").isTrue();
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
                .handshakeTimeout(Duration.ofMillis(500))
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

  /** Bytes that are no name of a file in the directory, and must not be made into another. */
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

  /** All that can be numbered: what is unknown is ignored, the rest is told once. */
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

  /** It changes nothing, either. */
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
      raw.startTls(WaysServersBrokeTest::tls).agree(replies);
      CheckedClient client = CheckedClient.go(raw, replies, "");
      client.call(EINVAL, 0, RawClient.BLOCK_STATUS, 0, 512);
      client.disconnect();
      // Without the option again, replies are simple.
      RawClient simple = hello().agree(replies).startTls(WaysServersBrokeTest::tls);
      simple.go("");
      simple.read(0, 100_000);
      simple.disconnect();
      RawClient byName = hello().agree(replies).startTls(WaysServersBrokeTest::tls);
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

  /** Whatever comes (TLS says why it ends), the end does. */
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

  /** Without close_notify, in the middle of requests and of replies. */
  @ParameterizedTest
  @EnumSource
  void item8TheEndWithoutCloseNotify(Leave way) throws Exception {
    serveTls(false);
    for (int payload : new int[] {0, 5000, 1 << 20}) {
      RawClient client = hello().startTls(WaysServersBrokeTest::tls);
      client.option(RawClient.GO, RawClient.infoData(""));
      client.expectInfos(RawClient.GO);
      client.write(0, new byte[100]);
      client.request(0, RawClient.READ, 1, 0, 8 << 20);
      client.request(0, RawClient.WRITE, 2, 0, 2 << 20, new byte[payload]);
      way.now(client);
      client.close();
    }
  }

  // 9. Every command by every length and offset.

  static Stream<Arguments> sizesAndReplies() {
    return Stream.of((long) SIZE, (8L << 30) + 512, Long.MAX_VALUE - 511)
        .flatMap(size -> Stream.of(Replies.values()).map(replies -> Arguments.of(size, replies)));
  }

  @ParameterizedTest
  @MethodSource("sizesAndReplies")
  void item9EveryLengthAtEveryOffset(long size, Replies replies) throws IOException {
    serve(new NullBackend(size));
    CheckedClient client = enter(replies);
    Rules rules = new Rules(client, BlockSizes.DEFAULT);
    long[] lengths = {0, 1, 2, LONGEST, LONGEST + 1L, 0xffffffffL};
    long[] wide = {1L << 32, size, size + 1, Long.MAX_VALUE, Long.MIN_VALUE, -size, -1};
    long[] offsets = {0, 1, size - 1, size, size + 1, Long.MAX_VALUE, Long.MIN_VALUE, -size, -1};
    for (int type : new int[] {0, 1, 3, 4, 5, 6, 7}) {
      for (long offset : offsets) {
        for (long length : lengths) {
          boolean long1 = type == RawClient.WRITE && (offset > 0 || length > LONGEST + 1L);
          if (length < LONGEST || !long1) {
            rules.check(client, client.flagsOf(type), type, offset, length);
          }
        }
        if (replies == Replies.EXTENDED && type != RawClient.WRITE) {
          for (long length : wide) {
            rules.check(client, 0, type, offset, length);
          }
        }
      }
    }
    client.disconnect();
  }

  @ParameterizedTest
  @EnumSource
  void item9AnEndlessWriteIsTheEnd(Replies replies) throws IOException {
    serveMemory();
    for (long length : new long[] {DRAINED + 1L, 0x7fffffffL, 0x80000000L, 0xffffffffL}) {
      CheckedClient client = enter(replies);
      client.send(client.writeFlags(), RawClient.WRITE, 0, length);
      client.raw().expectEnd();
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {2, 512, 4096, 65_536})
  void item9RequestsThatAreNotAligned(int minimum) throws IOException {
    BlockSizes sizes = new BlockSizes(minimum, Math.max(minimum, 4096), 1 << 20);
    FakeBackend fake = new FakeBackend(4 * 65_536, sizes, FakeBackend.all());
    serve(fake);
    long[][] misaligned = {
      {1, minimum}, {0, 1}, {0, minimum + 1}, {minimum - 1, minimum}, {minimum, minimum - 1}
    };
    for (Replies replies : Replies.values()) {
      CheckedClient client = enter(replies);
      Rules rules = new Rules(client, sizes);
      for (int type : new int[] {0, 1, 4, 5, 6, 7}) {
        for (long[] range : misaligned) {
          rules.check(client, client.flagsOf(type), type, range[0], range[1]);
        }
        rules.check(client, client.flagsOf(type), type, 0, (1 << 20) + minimum);
      }
      client.disconnect();
    }
    assertThat(fake.calls()).isEmpty();
    CheckedClient client = enter(Replies.SIMPLE);
    client.write(minimum, new byte[minimum]);
    client.read(2L * minimum, minimum);
    client.disconnect();
  }

  // 10. Flags and commands that were not offered.

  @ParameterizedTest
  @EnumSource
  void item10EveryFlagOfEveryCommandWhereLittleOrNothingIsOffered(Replies replies)
      throws IOException {
    try (Making making = new Making(directory)) {
      TestServer server = serve(making.little(BlockSizes.DEFAULT));
      everyFlag(enter(replies));
      server.witness().write(0, new byte[1]);
    }
  }

  @ParameterizedTest
  @EnumSource
  void item10EveryFlagOfEveryCommandOnAReadOnlyExport(Replies replies) throws IOException {
    watch(TestServer.with(new MemoryBackend(SIZE)).readOnly().start());
    everyFlag(enter(replies));
    CheckedClient client = enter(replies);
    assertThat(client.has(TransmissionFlag.READ_ONLY)).isTrue();
    for (int length : new int[] {0, 1, 100_000, LONGEST, LONGEST + 1}) {
      Answer answer = client.call(EPERM, client.writeFlags(), RawClient.WRITE, 0, length);
      assertThat(answer.message()).contains(replies == Replies.SIMPLE ? "" : "read-only");
      client.call(EPERM, RawClient.FUA, RawClient.TRIM, 0, length);
      client.call(EPERM, RawClient.NO_HOLE, RawClient.WRITE_ZEROES, 0, length);
    }
    client.flush();
    client.disconnect();
  }

  private static void everyFlag(CheckedClient talk) throws IOException {
    Rules rules = new Rules(talk, BlockSizes.DEFAULT);
    for (int type : new int[] {0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 255, 256, 257, 0x7fff, 0xffff}) {
      for (int bits = 0; bits < 18; bits++) {
        int flags = bits == 16 ? 0xffff : bits == 17 ? 0 : 1 << bits;
        boolean filter = type == RawClient.BLOCK_STATUS && (flags & RawClient.PAYLOAD_LEN) != 0;
        if (!filter || talk.replies() != Replies.EXTENDED) {
          rules.check(talk, flags, type, 0, type == RawClient.FLUSH ? 0 : 512);
        }
      }
    }
    talk.disconnect();
  }

  @ParameterizedTest
  @EnumSource
  void item10AGoodbyeWhileRequestsAreInFlight(Replies replies) throws IOException {
    CountDownLatch begun = new CountDownLatch(8);
    CountDownLatch go = new CountDownLatch(1);
    FakeBackend fake = new FakeBackend(4096);
    TestServer server = serve(fake);
    CheckedClient talk = enter(replies);
    fake.hook(
        call -> {
          begun.countDown();
          Eventually.await(go);
        });
    List<Long> cookies = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      cookies.add(talk.send(talk.writeFlags(), RawClient.WRITE, i, 1, (byte) (i + 1)));
    }
    talk.raw().send(request(replies, RawClient.DISC));
    Eventually.await(begun);
    go.countDown();
    for (long cookie : cookies) {
      talk.await(0, cookie);
    }
    talk.raw().expectEnd();
    assertThat(server.witness().read(0, 8)).isEqualTo(new byte[] {1, 2, 3, 4, 5, 6, 7, 8});
  }

  @ParameterizedTest
  @EnumSource
  void item10AGoodbyeMayHaveAnything(Replies replies) throws IOException {
    serveMemory();
    for (int flags : new int[] {0, 1, RawClient.PAYLOAD_LEN, 0xffff}) {
      CheckedClient client = enter(replies);
      client.raw().send(client.requestBytes(flags, RawClient.DISC, 1, -1, -1)).expectEnd();
    }
  }

  // 11. After a WRITE that is refused, whatever for, the next request parses.

  @ParameterizedTest
  @EnumSource
  void item11TheNextRequestParsesAfterARefusedWrite(Replies replies) throws IOException {
    FakeBackend fake = new FakeBackend(1 << 20);
    TestServer server = serve(fake);
    server.expectErrors();
    CheckedClient talk = enter(replies);
    for (Pace pace : List.of(Pace.WHOLE, Pace.random(11))) {
      talk.raw().pace(pace);
      for (int length : new int[] {1, 4096, 32_769, 300_000}) {
        refused(talk, talk.writeFlags(), (1 << 20) - length + 1, length, ENOSPC);
        refused(talk, talk.writeFlags() | 0x8000, 0, length, EINVAL);
        refused(talk, talk.writeFlags() | RawClient.FAST_ZERO, 0, length, EINVAL);
      }
    }
    talk.raw().pace(Pace.WHOLE);
    refused(talk, talk.writeFlags(), 0, LONGEST + 1, EINVAL);
    for (NbdError error : List.of(NbdError.ENOSPC, NbdError.EIO, NbdError.ENOMEM)) {
      fake.hook(
          call -> {
            if (call.command() == Command.WRITE) {
              throw new NbdException(error, "no");
            }
          });
      refused(talk, talk.writeFlags(), 0, 4096, error.code());
      refused(talk, talk.writeFlags(), 0, 1 << 20, error.code());
    }
    talk.disconnect();
  }

  @Test
  void item11AWriteOf128MebibytesIsDrained() throws IOException {
    serveMemory();
    CheckedClient client = enter(Replies.SIMPLE);
    long cookie = client.send(0, RawClient.WRITE, 0, DRAINED);
    byte[] piece = new byte[1 << 20];
    for (int i = 0; i < 128; i++) {
      client.raw().send(piece);
    }
    client.await(EINVAL, cookie);
    client.write(0, piece);
    client.disconnect();
  }

  private static void refused(CheckedClient talk, int flags, long offset, int length, int error)
      throws IOException {
    // A request inside the payload is data.
    byte[] payload = new byte[length];
    byte[] inner = request(talk.replies(), RawClient.DISC);
    System.arraycopy(inner, 0, payload, 0, Math.min(length, inner.length));
    long cookie = talk.send(flags, RawClient.WRITE, offset, length, payload);
    talk.await(error, cookie);
    assertThat(talk.read(5, 3)).hasSize(3);
  }

  // 12. BLOCK_STATUS of much, and of many.

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void item12BlockStatusOfAHugeExport(Replies replies) throws IOException {
    long size = MemoryBackend.MAXIMUM_SIZE;
    serve(new MemoryBackend(size));
    CheckedClient client = enter(replies);
    boolean wide = replies == Replies.EXTENDED;
    long most = wide ? size : 0xffffffffL;
    for (long offset : new long[] {0, 1, size - most}) {
      for (int flags : new int[] {0, RawClient.REQ_ONE}) {
        long length = Math.min(most, size - offset);
        assertThat(client.status(flags, offset, length)).hasSize(1);
      }
    }
    client.write(size - 1, (byte) 1);
    assertThat(client.status(0, size - (1 << 20), 1 << 20)).hasSize(2);
    client.disconnect();
  }

  // 13. Clients that never read; thousands in flight; cookies used twice.

  @ParameterizedTest
  @EnumSource
  void item13ManyWhoAskForMuchAndReadNothingAreServedWhenTheyRead(Replies replies)
      throws Exception {
    int count = 10;
    int reads = 3;
    byte[] image = Bytes.random(13, LONGEST);
    TestServer server =
        watch(TestServer.with(new MemoryBackend(LONGEST)).memory(Server.MINIMUM_MEMORY).start());
    server.witness().write(0, image);
    List<CheckedClient> greedy = new ArrayList<>();
    List<Long> cookies = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      CheckedClient talk = enter(replies);
      greedy.add(talk);
      for (int n = 0; n < reads; n++) {
        cookies.add(talk.send(0, RawClient.READ, 0, LONGEST));
      }
    }
    long bound = Server.MINIMUM_MEMORY + (count + 2L) * (512 << 10);
    CheckedClient other = enter(replies);
    for (int i = 0; i < 20; i++) {
      other.write(i, image[i]);
      assertThat(other.read(0, 1 << 20)).isEqualTo(Arrays.copyOf(image, 1 << 20));
      assertThat(server.memoryInFlight()).isLessThanOrEqualTo(bound);
    }
    other.disconnect();
    for (int i = 0; i < cookies.size(); i++) {
      Answer outcome = greedy.get(i / reads).await(cookies.get(i));
      assertThat(Arrays.equals(outcome.data(), image)).as("read %d", i).isTrue();
      assertThat(server.memoryInFlight()).isLessThanOrEqualTo(bound);
    }
    for (CheckedClient talk : greedy) {
      talk.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void item13ManyWhoAskForMuchAndReadNothingLeaveNothingBehind(Replies replies) throws Exception {
    TestServer server =
        watch(TestServer.with(new MemoryBackend(LONGEST)).memory(Server.MINIMUM_MEMORY).start());
    for (int i = 0; i < 30; i++) {
      CheckedClient talk = enter(replies);
      for (int n = 0; n < 100; n++) {
        talk.send(0, RawClient.READ, 0, LONGEST);
      }
    }
    CheckedClient other = enter(replies);
    other.write(0, new byte[1 << 20]);
    assertThat(other.read(0, LONGEST)).hasSize(LONGEST);
    assertThat(server.memoryInFlight())
        .isLessThanOrEqualTo(Server.MINIMUM_MEMORY + 32L * (512 << 10));
    other.disconnect();
  }

  @Test
  void item13CookiesUsedTwiceAreAnsweredTwice() throws IOException {
    serveMemory();
    RawClient client = connect();
    client.enter("");
    for (int i = 0; i < 3000; i++) {
      client.request(0, RawClient.FLUSH, 5, 0, 0);
    }
    for (int i = 0; i < 3000; i++) {
      client.expectReply(0, 5);
    }
    client.disconnect();
  }

  @Test
  void item13ThousandsInFlightAreAnsweredOnceEach() throws Exception {
    int count = 5000;
    byte[] image = Bytes.random(7, 1 << 20);
    serveMemory();
    RawClient client = connect();
    client.enter("");
    client.write(0, image);
    Running sending =
        Running.start(
            () -> {
              for (int i = 0; i < count; i++) {
                client.request(0, RawClient.READ, i, i, 1 + i % 300);
              }
            });
    Set<Long> answered = new HashSet<>();
    for (int i = 0; i < count; i++) {
      long cookie = client.expectReply(0);
      byte[] data = client.take(1 + (int) cookie % 300);
      assertThat(CheckedClient.isRange(data, image, (int) cookie)).isTrue();
      assertThat(answered.add(cookie)).as("cookie %d for the first time", cookie).isTrue();
    }
    sending.join();
    client.disconnect();
  }

  // 14. Extended headers.

  @Test
  void item14PayloadsThatAreMissingOrTooMuch() throws IOException {
    serveMemory();
    CheckedClient client = enter(Replies.EXTENDED);
    for (long length : new long[] {0, 1, LONGEST, LONGEST + 1L, 1L << 32, Long.MIN_VALUE, -1}) {
      for (int flags : new int[] {0, RawClient.FUA}) {
        Answer answer = client.call(EINVAL, flags, RawClient.WRITE, 0, length);
        assertThat(answer.message()).contains("PAYLOAD_LEN");
      }
    }
    for (int type : new int[] {0, 3, 4, 5, 6, 8, 99}) {
      for (int length : new int[] {0, 1, 32, 100_000, LONGEST}) {
        client.call(EINVAL, RawClient.PAYLOAD_LEN, type, 0, length, Bytes.random(type, length));
        client.call(EINVAL, RawClient.PAYLOAD_LEN | RawClient.FUA, type, 0, length);
      }
    }
    for (int type : new int[] {0, 1, 3, 4, 5, 6, 7, 99}) {
      for (long length : new long[] {DRAINED + 1L, 1L << 32, Long.MAX_VALUE, 1L << 63, -1}) {
        CheckedClient other = enter(Replies.EXTENDED);
        long sent = type != RawClient.WRITE && length == DRAINED + 1L ? LONGEST + 1L : length;
        other.send(RawClient.PAYLOAD_LEN, type, 0, sent);
        other.raw().expectEnd();
      }
    }
    client.raw().request(0, RawClient.READ, 1, 0, 512, new byte[4]).expectEnd();
  }

  @Test
  void item14StatusPayloads() throws IOException {
    serveMemory();
    CheckedClient client = enter(Replies.EXTENDED);
    int one = RawClient.CONTEXT;
    assertThat(client.filteredStatus(0, 0, SIZE, one).extents())
        .containsExactly(new StatusExtent(SIZE, 3));
    assertThat(client.filteredStatus(RawClient.REQ_ONE, 5, 10, one).extents())
        .containsExactly(new StatusExtent(10, 3));
    int[][] wrong = {{}, {0}, {2}, {-1}, {one, one}, {one, 2}, {2, one}, {one, 0, 3}, new int[99]};
    for (int[] contexts : wrong) {
      assertThat(client.filteredStatus(0, 0, 512, contexts).error()).isEqualTo(EINVAL);
    }
    for (long length : new long[] {0, SIZE + 1L, -1, Long.MIN_VALUE}) {
      assertThat(client.filteredStatus(0, 0, length, one).error()).isEqualTo(EINVAL);
    }
    assertThat(client.filteredStatus(0, SIZE, 1, one).error()).isEqualTo(EINVAL);
    assertThat(client.filteredStatus(RawClient.NO_HOLE, 0, 512, one).error()).isEqualTo(EINVAL);
    for (int bytes : new int[] {0, 1, 4, 8, 11, 13, 16, 5000, LONGEST}) {
      client.call(EINVAL, RawClient.PAYLOAD_LEN, RawClient.BLOCK_STATUS, 0, bytes);
    }
    client.disconnect();
  }

  @Test
  void item14AStatusPayloadWithoutASelectedContext() throws IOException {
    serveMemory();
    CheckedClient client = CheckedClient.go(hello().agree(Replies.EXTENDED), Replies.EXTENDED, "");
    for (int contexts = 0; contexts < 5; contexts++) {
      assertThat(client.filteredStatus(0, 0, 512, new int[contexts]).error()).isEqualTo(EINVAL);
    }
    assertThat(client.filteredStatus(0, 0, 512, RawClient.CONTEXT).error()).isEqualTo(EINVAL);
    client.read(0, 1);
    client.disconnect();
  }

  // 15. Storage that fails.

  @ParameterizedTest
  @EnumSource
  void item15ErrorsOfTheStorageAreAnswersAndTheConnectionGoesOn(Replies replies)
      throws IOException {
    List<Exception> failures = new ArrayList<>(List.of(new IOException("secret")));
    failures.add(new IllegalStateException("secret"));
    for (NbdError error : EnumSet.complementOf(EnumSet.of(NbdError.NONE))) {
      failures.add(new NbdException(error, "the disk is on fire"));
    }
    FakeBackend fake = new FakeBackend(1 << 20);
    serve(fake).expectErrors();
    CheckedClient client = enter(replies);
    for (int type : new int[] {0, 1, 3, 4, 5, 6}) {
      int length = type == RawClient.FLUSH ? 0 : 100_000;
      for (Exception failure : failures) {
        fake.hook(call -> fail(failure));
        boolean told = failure instanceof NbdException;
        int error = failure instanceof NbdException nbd ? nbd.error().code() : EIO;
        Answer answer = client.call(error, client.flagsOf(type), type, 0, length);
        if (replies != Replies.SIMPLE) {
          assertThat(answer.message()).contains(told ? "the disk is on fire" : "log");
          assertThat(answer.message()).doesNotContain("secret");
          assertThat(answer.errorAt()).isEqualTo(type == RawClient.READ ? 0 : -1);
        }
      }
      fake.hook(call -> {});
      client.call(0, client.flagsOf(type), type, 0, length);
    }
    client.disconnect();
  }

  private static void fail(Exception failure) throws IOException {
    switch (failure) {
      case IOException io -> throw io;
      case RuntimeException mistake -> throw mistake;
      default -> throw new AssertionError(failure);
    }
  }

  /** The clients that wrote, and flush while the failing flush runs, share its failure. */
  @Test
  void item15AFlushThatFailsFailsForEveryClientThatReliedOnIt() throws Exception {
    FakeBackend fake =
        new FakeBackend(
            1 << 20, BlockSizes.DEFAULT, FakeBackend.all().without(Capability.MULTI_CONN));
    TestServer server = serve(new MultiConnFilter(fake, MultiConnSettings.DEFAULT));
    server.expectErrors();
    List<CheckedClient> talks = new ArrayList<>();
    for (Replies replies : Replies.values()) {
      CheckedClient talk = enter(replies);
      talk.write(talks.size() * 4096L, new byte[4096]);
      talks.add(talk);
    }
    fake.hook(
        call -> {
          if (call.command() == Command.FLUSH) {
            throw new IOException("the disk is gone");
          }
        });
    for (int round = 0; round < 2; round++) {
      for (CheckedClient talk : talks) {
        talk.call(EIO, 0, RawClient.FLUSH, 0, 0);
        int flags = talk.writeFlags() | RawClient.FUA;
        talk.call(EIO, flags, RawClient.WRITE, 0, 512);
      }
    }
    fake.hook(call -> {});
    for (CheckedClient talk : talks) {
      talk.call(0, 0, RawClient.FLUSH, 0, 0);
      talk.disconnect();
    }
  }
}
