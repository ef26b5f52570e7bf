package nbd.conformance;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Stream;
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
import nbd.storage.Capability;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.Answer;
import nbd.testing.CheckedClient.StatusExtent;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.Pace;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The ways in which NBD servers have broken after the handshake: items 9 to 15 of the project's
 * list of them, in its order, and the index of their tests. {@link WaysHandshakesBrokeTest} has the
 * others.
 */
final class WaysRequestsBrokeTest extends BreakingCases {
  private static final int EIO = 5;
  private static final int EPERM = 1;
  private static final int ENOSPC = 28;

  /** A longer WRITE is not drained. */
  private static final int DRAINED = 128 << 20;

  /** Tests elsewhere that belong to an item, by its number. */
  @ParameterizedTest
  @CsvSource(
      textBlock =
          """
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
    assertThat(item).isBetween(9, 15);
    assertIsTest(type, test);
  }

  /** The footprint shows a client and its request in flight: the tests here rely on that. */
  @Test
  void whatAClientHoldsIsSeen() throws Exception {
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
    Footprint without = before();
    // The connection's, the one that waits for storage, and the one that receives meanwhile.
    Eventually.isTrue(
        "three threads more", () -> Footprint.of(server).threads() == without.threads() + 3);
    Footprint now = Footprint.of(server);
    assertThat(now.descriptors()).as("both sockets").isEqualTo(without.descriptors() + 2);
    assertThat(now.handles()).isEqualTo(without.handles() + 1);
    assertThat(now.inFlight()).isGreaterThanOrEqualTo(4096);
    go.countDown();
    talk.await(0, cookie);
    talk.disconnect();
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
