package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.concurrent.locks.ReentrantLock;
import nbd.backend.NullBackend;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.ReplyFormat;
import nbd.protocol.RequestHeader;
import nbd.server.SlowRequests.Slow;
import nbd.testing.Bytes;
import nbd.testing.FakeBackend;
import nbd.testing.ThirteenBytes;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Requests with a thread of their own, without a connection. */
@Timeout(60)
final class SlowRequestsTest {
  private static final long SHARED = 64 << 20;

  private final FakeBackend fake = new FakeBackend(1 << 20);
  private final ServerMemory server = new ServerMemory(SHARED, Duration.ofMinutes(1));
  private final ThirteenBytes channel = new ThirteenBytes();
  private final Replies replies = new Replies(channel, new ReentrantLock(), server.buffers());
  private final ReplyBatch batch =
      new ReplyBatch(
          replies,
          new NullBackend(0).open("", false),
          ReplyFormat.SIMPLE,
          server.buffers(),
          new Turn(() -> false));

  private SlowRequests requests() throws IOException {
    ConnectionMemory memory = new ConnectionMemory(server, () -> {});
    return new SlowRequests("test", fake.open("", false), replies, ReplyFormat.SIMPLE, memory);
  }

  /** A request whose cookie is what matters. */
  static RequestHeader request(long cookie) throws IOException {
    RequestHeader request = new RequestHeader();
    ByteBuffer wire = ByteBuffer.allocate(RequestHeader.BYTES);
    RequestHeader.write(wire, 0, 3, cookie, 0, 0);
    request.readFrom(wire.flip());
    return request;
  }

  private Slow write(SlowRequests requests, int length) throws IOException {
    requests.enter(length, batch);
    RequestMemory memory = requests.memory();
    assertThat(memory.tryAdd(length)).isTrue();
    memory.buffer().put(new byte[length]).flip();
    return new Slow(Command.WRITE, CommandFlags.NONE, 7, 0, length, length, memory);
  }

  @Test
  void aRequestIsAnsweredAndItsMemoryComesBack() throws IOException {
    SlowRequests requests = requests();
    Slow write = write(requests, 100_000);
    assertThat(server.taken()).isGreaterThanOrEqualTo(100_000);
    requests.start(write);
    requests.awaitNone();
    assertThat(fake.count(Command.WRITE)).isEqualTo(1);
    assertThat(channel.written()).isEqualTo(Bytes.of().u32(0x67446698).u32(0).u64(7).toArray());
    assertThat(server.taken()).isZero();
  }

  @Test
  void afterTheClientIsGoneNothingBeginsAndAllMemoryComesBack() throws IOException {
    SlowRequests requests = requests();
    Slow write = write(requests, 100_000);
    requests.abandon();
    requests.start(write);
    requests.awaitNone();
    assertThat(fake.calls()).isEmpty();
    assertThat(channel.written()).isEmpty();
    assertThat(server.taken()).isZero();
  }

  private byte[] read(boolean withMemory, int offset, int length) throws IOException {
    SlowRequests requests = requests();
    int bytes = 16 + length;
    requests.enter(bytes, batch);
    RequestMemory memory = requests.memory();
    if (withMemory) {
      assertThat(memory.tryAddForReply(bytes)).isTrue();
    }
    requests.start(new Slow(Command.READ, CommandFlags.NONE, 9, offset, length, bytes, memory));
    requests.awaitNone();
    assertThat(server.taken()).isZero();
    return channel.written();
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void aReadsReplyIsItsHeaderAndItsDataWithMemoryAndWithout(boolean memory) throws IOException {
    int length = 300_000;
    byte[] data = Bytes.random(1, length);
    fake.open("", false).write(ByteBuffer.wrap(data), 50, CommandFlags.NONE);
    assertThat(read(memory, 50, length))
        .isEqualTo(Bytes.of().u32(0x67446698).u32(0).u64(9).raw(data).toArray());
  }

  @Test
  void aReadWithoutMemoryThatFailsAtOnceIsAnError() throws IOException {
    fake.hook(
        call -> {
          throw new IOException("no");
        });
    assertThat(read(false, 0, 300_000))
        .isEqualTo(Bytes.of().u32(0x67446698).u32(5).u64(9).toArray());
  }

  /** There is no way to tell the client, who waits for the rest: it has to see the end. */
  @Test
  void aSimpleReplyThatFailsInTheMiddleEndsTheStream() throws IOException {
    fake.hook(
        call -> {
          if (call.offset() > 0) {
            throw new IOException("no");
          }
        });
    assertThat(read(false, 0, 300_000)).hasSize(16 + 65_536);
    assertThat(channel.isClosed()).isTrue();
  }

  @Test
  void aPlaceThatIsNotUsedIsGivenBack() throws IOException {
    SlowRequests requests = requests();
    requests.enter(64 << 10, batch);
    requests.leave(64 << 10);
    requests.awaitNone();
  }

  @Test
  void whatIsReadyIsSentBeforeARequestWaitsForAPlace() throws Exception {
    SlowRequests requests = requests();
    requests.enter((int) InFlight.MAXIMUM_BYTES, batch);
    batch.succeed(request(3));
    assertThat(channel.written()).isEmpty();
    Thread waiting =
        Thread.ofVirtual()
            .start(
                () -> {
                  try {
                    requests.enter(1, batch);
                    requests.leave(1);
                  } catch (IOException impossible) {
                    throw new AssertionError(impossible);
                  }
                });
    nbd.testing.Eventually.isTrue("the reply is sent", () -> channel.written().length == 16);
    requests.leave((int) InFlight.MAXIMUM_BYTES);
    waiting.join();
  }
}
