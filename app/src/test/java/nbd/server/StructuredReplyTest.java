package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import nbd.file.FileBackend;
import nbd.file.FileSettings;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.protocol.Command;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.Extent;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.Answer;
import nbd.testing.FakeBackend;
import nbd.testing.HookedBackend;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Replies in chunks, with either header: data, holes and errors. */
@Timeout(300)
final class StructuredReplyTest {
  private static final int SIZE = 4 << 20;

  @TempDir private Path directory;

  /**
   * A cached file's long reads are sent straight from the page cache, its short ones in batches.
   */
  @ParameterizedTest
  @CsvSource({"STRUCTURED,false", "EXTENDED,false", "STRUCTURED,true", "EXTENDED,true"})
  void aFileIsReadInEveryWay(Replies replies, boolean tcp) throws IOException {
    byte[] image = Bytes.random(42, SIZE);
    Path file = Files.write(directory.resolve("image"), image);
    try (TestServer server =
            TestServer.with(FileBackend.open(file, FileSettings.DEFAULT)).tcp(tcp).start();
        CheckedClient client = server.enter(replies)) {
      for (int length : new int[] {1, 511, 4096, 65_536, 65_537, 1 << 20, SIZE}) {
        for (int flags : new int[] {0, RawClient.DF}) {
          Answer answer = client.call(0, flags, RawClient.READ, SIZE - length, length);
          assertThat(CheckedClient.isRange(answer.data(), image, SIZE - length)).isTrue();
        }
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void manyReadsInFlightAreEachAnsweredWithTheirOwnData(Replies replies) throws IOException {
    byte[] image = Bytes.random(43, SIZE);
    Path file = Files.write(directory.resolve("image"), image);
    try (TestServer server = TestServer.of(FileBackend.open(file, FileSettings.DEFAULT));
        CheckedClient client = server.enter(replies)) {
      int count = 200;
      long[] cookies = new long[count];
      int[] lengths = new int[count];
      Random random = new Random(44);
      for (int i = 0; i < count; i++) {
        lengths[i] = 1 + random.nextInt(random.nextInt(4) == 0 ? 200_000 : 5_000);
        cookies[i] = client.send(0, RawClient.READ, i * 1000L, lengths[i]);
      }
      for (int i = count - 1; i >= 0; i--) {
        byte[] data = client.await(cookies[i]).data();
        assertThat(CheckedClient.isRange(data, image, i * 1000)).isTrue();
      }
      client.disconnect();
    }
  }

  /** The read cannot fail any more, so the reply adds nothing but a header. */
  @ParameterizedTest
  @CsvSource({"STRUCTURED,28", "EXTENDED,40"})
  void aShortReadIsOneChunkThatIsTheLast(Replies replies, int header) throws IOException {
    try (TestServer server = TestServer.of(new MemoryBackend(SIZE));
        CheckedClient client = server.enter(replies)) {
      assertThat(client.call(0, 0, RawClient.READ, 5, 4096).types()).containsExactly(1);
      assertThat(client.bytesTaken()).isEqualTo(header + 4096);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aHoleThatALongReadMeetsIsNotSent(Replies replies) throws IOException {
    try (TestServer server = TestServer.of(new MemoryBackend(64 << 20));
        CheckedClient client = server.enter(replies)) {
      byte[] data = Bytes.random(45, 65_536);
      client.write(1 << 20, data);
      client.write(3 << 20, data);
      long before = client.bytesTaken();
      Answer answer = client.call(0, 0, RawClient.READ, 1000, 32 << 20);
      assertThat(answer.types()).containsExactly(2, 1, 2, 1, 2);
      assertThat(client.bytesTaken() - before).isLessThan(2 * 65_536 + 300);
      byte[] expected = new byte[32 << 20];
      System.arraycopy(data, 0, expected, (1 << 20) - 1000, 65_536);
      System.arraycopy(data, 0, expected, (3 << 20) - 1000, 65_536);
      assertThat(Arrays.equals(answer.data(), expected)).isTrue();
      // Without fragments: one chunk, which is a hole only if all of it is one.
      int df = RawClient.DF;
      assertThat(client.call(0, df, RawClient.READ, 0, 2 << 20).types()).containsExactly(1);
      assertThat(client.call(0, df, RawClient.READ, 8 << 20, 32 << 20).types()).containsExactly(2);
      assertThat(client.call(0, 0, RawClient.READ, 8 << 20, 32 << 20).types()).containsExactly(2);
      client.disconnect();
    }
  }

  /** Returns random extents from the question's offset on, which may run past its range. */
  private static List<Extent> anyExtents(Random random, Operation question) {
    long step = 1L << (10 + random.nextInt(12));
    List<Extent> all = new java.util.ArrayList<>();
    long at = question.offset();
    long end = Math.min(SIZE, at + question.length() + step);
    while (at < end && all.size() < question.most()) {
      long count = Math.min(SIZE - at, 1 + random.nextLong(step));
      all.add(new Extent(count, random.nextBoolean(), all.size() % 2 == 0));
      at += count;
    }
    return all;
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3, 4, 5})
  void anyExtentsGiveTheSameData(int seed) throws IOException {
    Random random = new Random(seed);
    Backend sparse =
        new HookedBackend(
            new MemoryBackend(SIZE),
            (next, operation, patience, end) -> {
              if (operation.command() != Command.BLOCK_STATUS) {
                return next.perform(operation, patience, end);
              }
              operation.answer(anyExtents(random, operation));
              return Outcome.DONE;
            });
    try (TestServer server = TestServer.of(sparse);
        CheckedClient client = server.enter(Replies.STRUCTURED)) {
      for (int i = 0; i < 100; i++) {
        int length = 65_537 + random.nextInt(SIZE - 65_537);
        int flags = i % 3 == 0 ? RawClient.DF : 0;
        int offset = random.nextInt(SIZE - length);
        byte[] data = client.call(0, flags, RawClient.READ, offset, length).data();
        assertThat(Arrays.equals(data, new byte[length])).isTrue();
      }
      client.disconnect();
    }
  }

  @Test
  void aLongReasonIsCutBetweenCharacters() throws Exception {
    FakeBackend fake = new FakeBackend(SIZE);
    try (TestServer server = TestServer.of(fake);
        CheckedClient client = server.enter(Replies.STRUCTURED)) {
      server.expectErrors();
      fake.hook(
          call -> {
            throw new NbdException(NbdError.ENOSPC, "e\u0301".repeat(1000));
          });
      String message = client.call(RawClient.ENOSPC, 0, RawClient.TRIM, 0, 4096).message();
      assertThat(message).startsWith("e\u0301").doesNotContain("\ufffd");
      assertThat(message.length()).isBetween(160, 256);
      client.disconnect();
    }
  }

  /** Makes storage that sends data itself, and stops after so many bytes. */
  private static Backend stoppingAfter(int bytes, Exception failure) {
    return new HookedBackend(
        new NullBackend(SIZE),
        (next, operation, patience, end) -> {
          if (!operation.isTransfer()) {
            return next.perform(operation, patience, end);
          }
          WritableByteChannel out = operation.target().begin();
          ByteBuffer data = ByteBuffer.allocate(bytes);
          Arrays.fill(data.array(), (byte) 7);
          while (data.hasRemaining()) {
            operation.target().sent(out.write(data));
          }
          switch (failure) {
            case IOException io -> throw io;
            case RuntimeException mistake -> throw mistake;
            default -> throw new AssertionError(failure);
          }
        });
  }

  @ParameterizedTest
  @CsvSource({
    "STRUCTURED,0",
    "STRUCTURED,1",
    "STRUCTURED,100000",
    "STRUCTURED,299999",
    "EXTENDED,70000"
  })
  void aReadThatFailsInTheMiddleIsFilledUpAndTheErrorSaysWhere(Replies replies, int good)
      throws Exception {
    for (Exception failure :
        List.of(new IOException("half way"), new IllegalStateException("mistake"))) {
      try (TestServer server = TestServer.of(stoppingAfter(good, failure));
          CheckedClient client = server.enter(replies)) {
        server.expectErrors();
        for (int i = 0; i < 2; i++) {
          Answer answer = client.call(RawClient.EIO, 0, RawClient.READ, 1000, 300_000);
          assertThat(answer.errorAt()).isEqualTo(1000 + good);
          assertThat(answer.types()).containsExactly(1, 0x8002);
          assertThat(answer.bytesCovered()).isEqualTo(300_000);
          byte[] sevens = new byte[good];
          Arrays.fill(sevens, (byte) 7);
          assertThat(Arrays.mismatch(answer.data(), 0, good, sevens, 0, good)).isEqualTo(-1);
          client.read(0, 512);
        }
        client.disconnect();
      }
    }
  }

  @Test
  void withSimpleRepliesAReadThatFailsInTheMiddleEndsTheConnection() throws Exception {
    try (TestServer server = TestServer.of(stoppingAfter(1000, new IOException("half way")));
        RawClient client = server.client()) {
      server.expectErrors();
      client.request(0, RawClient.READ, 1, 0, 300_000).expectReply(0, 1);
      client.take(1000);
      client.expectEnd();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aFileThatIsTruncatedWhileItIsServedCostsTheReadNotTheConnection(Replies replies)
      throws Exception {
    Path file = Files.write(directory.resolve("image"), Bytes.random(46, SIZE));
    try (TestServer server = TestServer.of(FileBackend.open(file, FileSettings.DEFAULT));
        CheckedClient client = server.enter(replies)) {
      server.expectErrors();
      client.read(0, SIZE);
      try (java.io.RandomAccessFile shorter = new java.io.RandomAccessFile(file.toFile(), "rw")) {
        shorter.setLength(1 << 20);
      }
      for (int length : new int[] {512, 100_000, SIZE - 5000}) {
        Answer answer = client.call(RawClient.EIO, 0, RawClient.READ, SIZE - length, length);
        assertThat(answer.message()).contains("truncated");
      }
      client.read(0, 1 << 20);
      client.disconnect();
    }
  }
}
