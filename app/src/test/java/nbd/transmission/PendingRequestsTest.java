package nbd.transmission;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;
import nbd.memory.NullBackend;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.ReplyFormat;
import nbd.protocol.RequestHeader;
import nbd.storage.Completion;
import nbd.storage.Outcome;
import nbd.testing.Bytes;
import nbd.testing.FakeBackend;
import nbd.testing.HookedBackend;
import nbd.testing.ThirteenBytes;
import nbd.transmission.PendingRequests.Pending;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Requests with a thread of their own, without a connection. */
@Timeout(300)
final class PendingRequestsTest {
  private static final long SHARED = 64 << 20;

  private final FakeBackend fake = new FakeBackend(1 << 20);
  private final Admission server = new Admission(SHARED, Duration.ofMinutes(1));
  private final Admission.Share share = server.open(() -> {});
  private final ThirteenBytes channel = new ThirteenBytes();
  private final Replies replies =
      new Replies(channel, new ReentrantLock(), server.buffers(), share.sending());

  private PendingRequests requests() throws IOException {
    return new PendingRequests("test", fake.open("", false), replies, ReplyFormat.SIMPLE);
  }

  /** Makes a flush with this cookie. */
  static RequestHeader request(long cookie) throws IOException {
    RequestHeader request = new RequestHeader();
    ByteBuffer wire = ByteBuffer.allocate(RequestHeader.BYTES);
    RequestHeader.write(wire, false, 0, Command.FLUSH, cookie, 0, 0);
    request.readFrom(wire.flip());
    return request;
  }

  private Pending write(int length) throws IOException {
    Admission.Reservation reservation = share.tryAdmit(Admission.bytesFor(length)).orElseThrow();
    reservation.allocate(length).put(new byte[length]).flip();
    return new Pending(Command.WRITE, CommandFlags.NONE, 7, 0, length, reservation, Set.of());
  }

  private static void start(PendingRequests requests, Pending request) {
    requests.start(request, () -> {}, false).ifPresent(each -> each.call().run());
  }

  @Test
  void aRequestIsAnsweredAndItsMemoryComesBack() throws IOException {
    PendingRequests requests = requests();
    Pending write = write(100_000);
    assertThat(server.held()).isGreaterThanOrEqualTo(100_000);
    start(requests, write);
    share.awaitNone();
    assertThat(fake.count(Command.WRITE)).isEqualTo(1);
    assertThat(channel.written()).isEqualTo(Bytes.of().u32(0x67446698).u32(0).u64(7).toArray());
    assertThat(server.held()).isZero();
  }

  @Test
  void afterTheClientIsGoneNothingBeginsAndAllMemoryComesBack() throws IOException {
    PendingRequests requests = requests();
    Pending write = write(100_000);
    requests.abandon();
    start(requests, write);
    share.awaitNone();
    assertThat(fake.calls()).isEmpty();
    assertThat(channel.written()).isEmpty();
    assertThat(server.held()).isZero();
  }

  private byte[] read(boolean withMemory, int offset, int length) throws IOException {
    PendingRequests requests = requests();
    int bytes = withMemory ? 16 + length : 0;
    Admission.Reservation reservation =
        share.tryAdmitReply(Admission.bytesFor(bytes)).orElseThrow();
    if (withMemory) {
      reservation.allocate(bytes);
    }
    start(
        requests,
        new Pending(Command.READ, CommandFlags.NONE, 9, offset, length, reservation, Set.of()));
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

  /**
   * A simple reply has no place for a late error: the client, which waits for the rest, has to see
   * the end.
   */
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
    PendingRequests requests = requests();
    Admission.Reservation reservation = share.tryAdmit(Admission.REQUEST_BYTES).orElseThrow();
    start(
        requests,
        new Pending(
            Command.BLOCK_STATUS,
            CommandFlags.NONE,
            9,
            0,
            1,
            reservation,
            Set.of(MetaContext.ALLOCATION)));
    share.awaitNone();
    assertThat(channel.isClosed()).isTrue();
    assertThat(server.held()).isZero();
  }

  private PendingRequests begun(Begin begin) {
    return new PendingRequests(
        "test",
        HookedBackend.handle(
            new NullBackend(1 << 20).open("", false),
            (next, operation, patience, end) -> {
              begin.begin(end);
              return Outcome.BEGUN;
            }),
        replies,
        ReplyFormat.SIMPLE);
  }

  private interface Begin {
    void begin(Completion end);
  }

  private Pending beginnable() throws IOException {
    Admission.Reservation reservation = share.tryAdmitReply(Admission.bytesFor(116)).orElseThrow();
    reservation.allocate(116);
    return new Pending(Command.READ, CommandFlags.NONE, 9, 0, 100, reservation, Set.of());
  }

  /**
   * The caller of the completion gets no exception, and the connection does not wait for the
   * request.
   */
  @Test
  void anEndWhoseReplyCannotBeMadeLeavesNothingBehind() throws IOException {
    List<Completion> ends = new ArrayList<>();
    PendingRequests requests = begun(ends::add);
    Pending read = beginnable();
    start(requests, read);
    read.reservation().releaseBuffer();
    ends.getFirst().done(null);
    share.awaitNone();
    assertThat(channel.isClosed()).isTrue();
    assertThat(server.held()).isZero();
  }

  @Test
  void aHandleThatFailsToBeginLeavesNothingBehindEvenIfItTellsTheEndLater() throws IOException {
    List<Completion> ends = new ArrayList<>();
    PendingRequests requests =
        begun(
            end -> {
              ends.add(end);
              throw new OutOfMemoryError("no memory");
            });
    Pending read = beginnable();
    assertThatThrownBy(() -> requests.start(read, () -> {}, false))
        .isInstanceOf(OutOfMemoryError.class);
    share.awaitNone();
    assertThat(server.held()).isZero();
    ends.getFirst().done(null);
    assertThat(server.held()).isZero();
  }
}
