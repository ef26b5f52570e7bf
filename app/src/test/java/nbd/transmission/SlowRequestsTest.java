package nbd.transmission;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import nbd.filter.FilterHandle;
import nbd.memory.NullBackend;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.ReplyFormat;
import nbd.protocol.RequestHeader;
import nbd.storage.Completion;
import nbd.testing.Bytes;
import nbd.testing.FakeBackend;
import nbd.testing.ThirteenBytes;
import nbd.transmission.SlowRequests.Slow;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Requests with a thread of their own, without a connection. */
@Timeout(60)
final class SlowRequestsTest {
  private static final long SHARED = 64 << 20;

  private final FakeBackend fake = new FakeBackend(1 << 20);
  private final Admission server = new Admission(SHARED, Duration.ofMinutes(1));
  private final Admission.Share share = server.open(() -> {});
  private final ThirteenBytes channel = new ThirteenBytes();
  private final Replies replies =
      new Replies(channel, new ReentrantLock(), server.buffers(), share.sending());

  private SlowRequests requests() throws IOException {
    return new SlowRequests("test", fake.open("", false), replies, ReplyFormat.SIMPLE);
  }

  /** A request whose cookie is what matters. */
  static RequestHeader request(long cookie) throws IOException {
    RequestHeader request = new RequestHeader();
    ByteBuffer wire = ByteBuffer.allocate(RequestHeader.BYTES);
    RequestHeader.write(wire, 0, 3, cookie, 0, 0);
    request.readFrom(wire.flip());
    return request;
  }

  private Slow write(int length) throws IOException {
    Admission.Place place = share.tryAdmit(Admission.bytesFor(length)).orElseThrow();
    place.allocate(length).put(new byte[length]).flip();
    return new Slow(Command.WRITE, CommandFlags.NONE, 7, 0, length, place);
  }

  @Test
  void aRequestIsAnsweredAndItsMemoryComesBack() throws IOException {
    SlowRequests requests = requests();
    Slow write = write(100_000);
    assertThat(server.held()).isGreaterThanOrEqualTo(100_000);
    requests.start(write);
    share.awaitNone();
    assertThat(fake.count(Command.WRITE)).isEqualTo(1);
    assertThat(channel.written()).isEqualTo(Bytes.of().u32(0x67446698).u32(0).u64(7).toArray());
    assertThat(server.held()).isZero();
  }

  @Test
  void afterTheClientIsGoneNothingBeginsAndAllMemoryComesBack() throws IOException {
    SlowRequests requests = requests();
    Slow write = write(100_000);
    requests.abandon();
    requests.start(write);
    share.awaitNone();
    assertThat(fake.calls()).isEmpty();
    assertThat(channel.written()).isEmpty();
    assertThat(server.held()).isZero();
  }

  private byte[] read(boolean withMemory, int offset, int length) throws IOException {
    SlowRequests requests = requests();
    int bytes = withMemory ? 16 + length : 0;
    Admission.Place place = share.tryAdmitReply(Admission.bytesFor(bytes)).orElseThrow();
    if (withMemory) {
      place.allocate(bytes);
    }
    requests.start(new Slow(Command.READ, CommandFlags.NONE, 9, offset, length, place));
    share.awaitNone();
    assertThat(server.held()).isZero();
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
  void anErrorInTheMiddleOfAReadEndsTheStream() throws IOException {
    fake.hook(
        call -> {
          if (call.offset() > 0) {
            throw new OutOfMemoryError("no memory");
          }
        });
    assertThat(read(false, 0, 300_000)).hasSize(16 + 65_536);
    assertThat(channel.isClosed()).isTrue();
  }

  /** The request's thread cannot make a reply: the client would wait for it for ever. */
  @Test
  void aReplyThatCannotBeMadeEndsTheStream() throws IOException {
    SlowRequests requests = requests();
    Admission.Place place = share.tryAdmit(Admission.REQUEST_BYTES).orElseThrow();
    requests.start(new Slow(Command.BLOCK_STATUS, CommandFlags.NONE, 9, 0, 1, place));
    share.awaitNone();
    assertThat(channel.isClosed()).isTrue();
    assertThat(server.held()).isZero();
  }

  private SlowRequests begun(Begin begin) {
    return new SlowRequests(
        "test",
        new FilterHandle(new NullBackend(1 << 20).open("", false)) {
          @Override
          public boolean beginRead(ByteBuffer into, long offset, Completion end) {
            begin.begin(end);
            return true;
          }
        },
        replies,
        ReplyFormat.SIMPLE);
  }

  private interface Begin {
    void begin(Completion end);
  }

  private Slow beginnable() throws IOException {
    Admission.Place place = share.tryAdmitReply(Admission.bytesFor(116)).orElseThrow();
    place.allocate(116);
    return new Slow(Command.READ, CommandFlags.NONE, 9, 0, 100, place);
  }

  /** Whoever tells the end is thrown nothing, and the connection does not wait for the request. */
  @Test
  void anEndWhoseReplyCannotBeMadeLeavesNothingBehind() throws IOException {
    List<Completion> ends = new ArrayList<>();
    SlowRequests requests = begun(ends::add);
    Slow read = beginnable();
    requests.start(read);
    read.place().releaseBuffer();
    ends.getFirst().done(null);
    share.awaitNone();
    assertThat(channel.isClosed()).isTrue();
    assertThat(server.held()).isZero();
  }

  @Test
  void aHandleThatFailsToBeginLeavesNothingBehindEvenIfItTellsTheEndLater() throws IOException {
    List<Completion> ends = new ArrayList<>();
    SlowRequests requests =
        begun(
            end -> {
              ends.add(end);
              throw new OutOfMemoryError("no memory");
            });
    Slow read = beginnable();
    assertThatThrownBy(() -> requests.start(read)).isInstanceOf(OutOfMemoryError.class);
    share.awaitNone();
    assertThat(server.held()).isZero();
    ends.getFirst().done(null);
    assertThat(server.held()).isZero();
  }
}
