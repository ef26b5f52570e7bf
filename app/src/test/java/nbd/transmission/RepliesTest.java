package nbd.transmission;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.Pipe;
import java.nio.channels.WritableByteChannel;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.ReplyFormat;
import nbd.storage.BufferPool;
import nbd.testing.Bytes;
import nbd.testing.ThirteenBytes;
import nbd.threads.TimeSlice;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Replies of several threads over a channel that takes 13 bytes at a time. */
@Timeout(300)
final class RepliesTest {
  private final BufferPool buffers = new BufferPool(1L << 30);

  /** The bytes that are left at each call of the channel. */
  private final List<Integer> calls = new ArrayList<>();

  private boolean breaks;
  private final ThirteenBytes channel = new ThirteenBytes(this::called);
  private final Replies replies =
      new Replies(channel, new ReentrantLock(), buffers, new Admission.Pace());

  private synchronized int called(int left) {
    calls.add(left);
    if (breaks && calls.size() == 2) {
      throw new IllegalStateException("Broken pipe");
    }
    return left;
  }

  private static ByteBuffer reply(long cookie) {
    ByteBuffer reply = ByteBuffer.allocate(ReplyFormat.SIMPLE.successBytes());
    ReplyFormat.SIMPLE.success(reply, cookie, 0);
    return reply.flip();
  }

  private void assertWritten(byte[] data) throws IOException {
    replies.send(reply(6));
    assertThat(channel.written())
        .isEqualTo(Bytes.of().raw(reply(5).array()).raw(data).raw(reply(6).array()).toArray());
  }

  private void assertThatNoneCanBeSent() {
    assertThatThrownBy(() -> replies.send(reply(6))).hasMessageContaining("earlier reply");
    assertThat(channel.isClosed()).isTrue();
  }

  @Test
  void aReplyIsSentWhole() throws IOException {
    replies.send(ByteBuffer.wrap(Bytes.random(1, 1000)));
    assertThat(channel.written()).isEqualTo(Bytes.random(1, 1000));
  }

  @Test
  void threadsSendWholeRepliesOnly() throws Exception {
    int each = 500;
    List<Thread> senders = new ArrayList<>();
    for (long first = 0; first < 4L * each; first += each) {
      long from = first;
      senders.add(Thread.ofVirtual().start(() -> sendAll(from, each)));
    }
    for (Thread sender : senders) {
      sender.join();
    }
    ByteBuffer all = ByteBuffer.wrap(channel.written());
    boolean[] sent = new boolean[4 * each];
    while (all.hasRemaining()) {
      assertThat(all.getInt()).isEqualTo(0x67446698);
      assertThat(all.getInt()).isZero();
      sent[(int) all.getLong()] = true;
    }
    assertThat(sent).containsOnly(true);
  }

  private void sendAll(long from, int count) {
    try {
      for (long cookie = from; cookie < from + count; cookie++) {
        replies.send(reply(cookie));
      }
    } catch (IOException impossible) {
      throw new AssertionError(impossible);
    }
  }

  @Test
  void afterAReplyThatCouldNotBeSentWholeNoneIsSent() {
    breaks = true;
    assertThatThrownBy(() -> replies.send(reply(1))).hasMessage("Broken pipe");
    assertThatNoneCanBeSent();
  }

  /** Makes a source that fails after so many bytes. */
  private static Replies.Source source(byte[] data, int until) {
    return to -> {
      WritableByteChannel channel = to.begin();
      ByteBuffer piece = to.piece().clear().put(data, 0, until).flip();
      while (piece.hasRemaining()) {
        channel.write(piece);
      }
      to.sent(until);
      if (until < data.length) {
        throw new IOException("half way");
      }
      return true;
    };
  }

  @Test
  void dataFromASourceFollowsItsHeader() throws IOException {
    byte[] data = Bytes.random(3, 100);
    assertThat(replies.sendFrom(source(data, 100), 100, reply(5), false)).isTrue();
    assertWritten(data);
  }

  @Test
  void aSourceThatDeclinesOrFailsAtOnceLeavesNothingBehind() throws IOException {
    assertThat(replies.sendFrom(to -> false, 100, reply(4), false)).isFalse();
    Replies.Source failing =
        to -> {
          throw new IOException("at once");
        };
    assertThatThrownBy(() -> replies.sendFrom(failing, 100, reply(4), false))
        .isInstanceOfSatisfying(
            PartialReadException.class, failure -> assertThat(failure.begun()).isFalse());
    replies.send(reply(6));
    assertThat(channel.written()).isEqualTo(reply(6).array());
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 50, 99})
  void aChunkWhoseSourceFailsIsFilledUp(int until) throws IOException {
    byte[] data = Bytes.random(4, 100);
    assertThatThrownBy(() -> replies.sendFrom(source(data, until), 100, reply(5), true))
        .isInstanceOfSatisfying(
            PartialReadException.class, failure -> assertThat(failure.sent()).isEqualTo(until))
        .hasRootCauseMessage("half way");
    assertWritten(Arrays.copyOf(Arrays.copyOf(data, until), 100));
  }

  @Test
  void aSourceThatSendsMoreThanItWasAskedForEndsTheStream() {
    Replies.Source boasting =
        to -> {
          to.begin();
          to.sent(101);
          return true;
        };
    assertThatThrownBy(() -> replies.sendFrom(boasting, 100, reply(5), true))
        .isInstanceOf(IllegalStateException.class);
    assertThatNoneCanBeSent();
  }

  @Test
  void aSimpleReplyWhoseSourceFailsEndsTheStream() {
    assertThatThrownBy(() -> replies.sendFrom(source(new byte[100], 50), 100, reply(5), false))
        .hasMessage("half way");
    assertThatNoneCanBeSent();
  }

  @Test
  void aPeerThatIsGoneIsNoFailureOfTheSource() throws IOException {
    Pipe pipe = Pipe.open();
    pipe.source().close();
    pipe.sink().close();
    Replies gone = new Replies(pipe.sink(), new ReentrantLock(), buffers, new Admission.Pace());
    assertThatThrownBy(() -> gone.sendFrom(source(new byte[100], 100), 100, reply(5), true))
        .isInstanceOf(ClosedChannelException.class);
  }

  @Test
  void aBatchIsSentTogetherAndInOrder() throws IOException {
    ReplyBatch batch =
        new ReplyBatch(replies, () -> {}, ReplyFormat.SIMPLE, buffers, new TimeSlice(() -> false));
    for (int i = 0; i < 100; i++) {
      batch.succeed(PendingRequestsTest.request(i));
    }
    assertThat(calls).isEmpty();
    batch.send();
    batch.send();
    assertThat(calls).startsWith(1600, 1600 - 13).hasSize((1600 + 12) / 13);
    ByteBuffer all = ByteBuffer.wrap(channel.written());
    for (int i = 0; i < 100; i++) {
      assertThat(all.getLong(16 * i + 8)).isEqualTo(i);
    }
  }
}
