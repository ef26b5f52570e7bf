package nbd.transmission;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.WritableByteChannel;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import nbd.memory.NullBackend;
import nbd.protocol.ReplyFormat;
import nbd.storage.BufferPool;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.ReadTarget;
import nbd.testing.Bytes;
import nbd.testing.HookedBackend;
import nbd.testing.ThirteenBytes;
import nbd.threads.TimeSlice;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Replies of several threads over a channel that takes 13 bytes at a time. */
@Timeout(60)
final class RepliesTest {
  private final BufferPool buffers = new BufferPool(1L << 30);

  private static ByteBuffer reply(long cookie) {
    ByteBuffer reply = ByteBuffer.allocate(ReplyFormat.SIMPLE.successBytes());
    ReplyFormat.SIMPLE.success(reply, cookie, 0);
    return reply.flip();
  }

  @Test
  void aReplyIsSentWhole() throws IOException {
    ThirteenBytes channel = new ThirteenBytes();
    new Replies(channel, new ReentrantLock(), buffers, new Admission.Pace())
        .send(ByteBuffer.wrap(Bytes.random(1, 1000)));
    assertThat(channel.written()).isEqualTo(Bytes.random(1, 1000));
  }

  @Test
  void threadsSendWholeRepliesOnly() throws Exception {
    int threads = 4;
    int each = 500;
    ThirteenBytes channel = new ThirteenBytes();
    Replies replies = new Replies(channel, new ReentrantLock(), buffers, new Admission.Pace());
    List<Thread> senders = new ArrayList<>();
    for (int i = 0; i < threads; i++) {
      long first = (long) i * each;
      senders.add(
          Thread.ofVirtual()
              .start(
                  () -> {
                    for (long cookie = first; cookie < first + each; cookie++) {
                      try {
                        replies.send(reply(cookie));
                      } catch (IOException impossible) {
                        throw new AssertionError(impossible);
                      }
                    }
                  }));
    }
    for (Thread sender : senders) {
      sender.join();
    }
    ByteBuffer all = ByteBuffer.wrap(channel.written());
    boolean[] sent = new boolean[threads * each];
    while (all.hasRemaining()) {
      assertThat(all.getInt()).isEqualTo(0x67446698);
      assertThat(all.getInt()).isZero();
      sent[(int) all.getLong()] = true;
    }
    assertThat(sent).containsOnly(true);
  }

  @Test
  void afterAReplyThatCouldNotBeSentWholeNoneIsSent() {
    WritableByteChannel breaking =
        new WritableByteChannel() {
          private int calls;

          @Override
          public int write(ByteBuffer from) throws IOException {
            calls++;
            if (calls == 2) {
              throw new IOException("Broken pipe");
            }
            from.position(from.position() + 1);
            return 1;
          }

          @Override
          public boolean isOpen() {
            return true;
          }

          @Override
          public void close() {}
        };
    Replies replies = new Replies(breaking, new ReentrantLock(), buffers, new Admission.Pace());
    assertThatThrownBy(() -> replies.send(reply(1))).hasMessage("Broken pipe");
    assertThatThrownBy(() -> replies.send(reply(2))).hasMessageContaining("earlier reply");
  }

  @Test
  void dataThatTheHandleSendsItselfFollowsItsHeader() throws IOException {
    ThirteenBytes channel = new ThirteenBytes();
    Replies replies = new Replies(channel, new ReentrantLock(), buffers, new Admission.Pace());
    byte[] data = Bytes.random(3, 100);
    Handle handle = sending(data, data.length);
    assertThat(sendFrom(replies, handle, reply(5), false)).isTrue();
    replies.send(reply(6));
    assertThat(channel.written())
        .isEqualTo(Bytes.of().raw(reply(5).array()).raw(data).raw(reply(6).array()).toArray());
  }

  @Test
  void aHandleThatCannotSendLeavesNothingBehind() throws IOException {
    ThirteenBytes channel = new ThirteenBytes();
    Replies replies = new Replies(channel, new ReentrantLock(), buffers, new Admission.Pace());
    Handle handle = new NullBackend(100).open("", false);
    assertThat(sendFrom(replies, handle, reply(5), false)).isFalse();
    replies.send(reply(6));
    assertThat(channel.written()).isEqualTo(reply(6).array());
  }

  private static boolean sendFrom(
      Replies replies, Handle handle, ByteBuffer header, boolean inChunk) throws IOException {
    return replies.sendFrom(
        to -> handle.tryNow(Operation.transfer(0, 100, to)), 100, header, inChunk);
  }

  @Test
  void aHandleThatFailsInTheMiddleOfAChunkHasItFilledUp() throws IOException {
    for (int until : new int[] {0, 1, 50, 99}) {
      ThirteenBytes channel = new ThirteenBytes();
      Replies replies = new Replies(channel, new ReentrantLock(), buffers, new Admission.Pace());
      byte[] data = Bytes.random(4, 100);
      assertThatThrownBy(() -> sendFrom(replies, sending(data, until), reply(5), true))
          .isInstanceOfSatisfying(
              PartialReadException.class, cut -> assertThat(cut.sent()).isEqualTo(until))
          .hasRootCauseMessage("half way");
      replies.send(reply(6));
      byte[] padded = Arrays.copyOf(Arrays.copyOf(data, until), 100);
      assertThat(channel.written())
          .isEqualTo(Bytes.of().raw(reply(5).array()).raw(padded).raw(reply(6).array()).toArray());
    }
  }

  @Test
  void aHandleThatSaysItSentMoreThanItWasAskedForEndsTheStream() {
    Replies replies =
        new Replies(new ThirteenBytes(), new ReentrantLock(), buffers, new Admission.Pace());
    Replies.Source boasting =
        to -> {
          to.begin();
          to.sent(101);
          return true;
        };
    assertThatThrownBy(() -> replies.sendFrom(boasting, 100, reply(5), true))
        .isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> replies.send(reply(6))).hasMessageContaining("earlier reply");
  }

  @Test
  void aHandleThatFailsAfterItsHeaderEndsTheStream() {
    Replies replies =
        new Replies(new ThirteenBytes(), new ReentrantLock(), buffers, new Admission.Pace());
    Handle handle = sending(new byte[100], 50);
    assertThatThrownBy(() -> sendFrom(replies, handle, reply(5), false)).hasMessage("half way");
    assertThatThrownBy(() -> replies.send(reply(6))).hasMessageContaining("earlier reply");
  }

  /** A handle that sends data by itself, and fails after so many bytes. */
  private static Handle sending(byte[] data, int until) {
    return HookedBackend.handle(
        new NullBackend(100).open("", false),
        (next, operation, patience, end) -> {
          ReadTarget to = operation.target();
          WritableByteChannel channel = to.begin();
          ByteBuffer piece = to.piece().clear().put(data, 0, until).flip();
          while (piece.hasRemaining()) {
            channel.write(piece);
          }
          to.sent(until);
          if (until < data.length) {
            throw new IOException("half way");
          }
          return Outcome.DONE;
        });
  }

  @Test
  void aBatchIsSentTogetherAndInOrder() throws IOException {
    java.io.ByteArrayOutputStream sent = new java.io.ByteArrayOutputStream();
    List<Integer> pieces = new ArrayList<>();
    WritableByteChannel out = Channels.newChannel(sent);
    WritableByteChannel counting =
        new WritableByteChannel() {
          @Override
          public int write(ByteBuffer from) throws IOException {
            pieces.add(from.remaining());
            return out.write(from);
          }

          @Override
          public boolean isOpen() {
            return true;
          }

          @Override
          public void close() {}
        };
    ReplyBatch batch =
        new ReplyBatch(
            new Replies(counting, new ReentrantLock(), buffers, new Admission.Pace()),
            () -> {},
            ReplyFormat.SIMPLE,
            buffers,
            new TimeSlice(() -> false));
    for (int i = 0; i < 100; i++) {
      batch.succeed(PendingRequestsTest.request(i));
    }
    assertThat(pieces).isEmpty();
    batch.send();
    batch.send();
    assertThat(pieces).containsExactly(1600);
    ByteBuffer all = ByteBuffer.wrap(sent.toByteArray());
    for (int i = 0; i < 100; i++) {
      assertThat(all.getLong(16 * i + 8)).isEqualTo(i);
    }
  }
}
