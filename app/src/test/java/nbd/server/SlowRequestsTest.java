package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.server.SlowRequests.Memory;
import nbd.server.SlowRequests.Slow;
import nbd.testing.Bytes;
import nbd.testing.FakeBackend;
import nbd.testing.ThirteenBytes;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Requests with a thread of their own, without a connection. */
@Timeout(60)
final class SlowRequestsTest {
  private final FakeBackend fake = new FakeBackend(1 << 20);
  private final BufferPool buffers = new BufferPool();
  private final MemoryBudget budget = new MemoryBudget(0);
  private final ThirteenBytes channel = new ThirteenBytes();
  private final Replies replies = new Replies(channel, new ReentrantLock(), buffers);
  private final ReplyBatch batch = new ReplyBatch(replies, buffers, new Turn(() -> false));

  private SlowRequests requests() throws IOException {
    return new SlowRequests("test", fake.open("", false), replies, buffers, budget);
  }

  private static Slow write(Memory memory, int length) {
    memory.buffer().put(new byte[length]).flip();
    return new Slow(Command.WRITE, CommandFlags.NONE, 7, 0, length, memory);
  }

  @Test
  void aRequestIsAnsweredAndItsMemoryComesBack() throws IOException {
    SlowRequests requests = requests();
    Memory memory = requests.take(100_000, batch);
    assertThat(budget.taken()).isGreaterThanOrEqualTo(100_000);
    requests.start(write(memory, 100_000));
    requests.awaitNone();
    assertThat(fake.count(Command.WRITE)).isEqualTo(1);
    assertThat(channel.written()).isEqualTo(Bytes.of().u32(0x67446698).u32(0).u64(7).toArray());
    assertThat(budget.taken()).isZero();
  }

  @Test
  void afterTheClientIsGoneNothingBeginsAndAllMemoryComesBack() throws IOException {
    SlowRequests requests = requests();
    Memory memory = requests.take(100_000, batch);
    requests.abandon();
    requests.start(write(memory, 100_000));
    requests.awaitNone();
    assertThat(fake.calls()).isEmpty();
    assertThat(channel.written()).isEmpty();
    assertThat(budget.taken()).isZero();
  }

  @Test
  void aReadsReplyIsItsHeaderAndItsData() throws IOException {
    SlowRequests requests = requests();
    fake.open("", false).write(ByteBuffer.wrap(Bytes.random(1, 300)), 50, CommandFlags.NONE);
    Memory memory = requests.take(16 + 300, batch);
    requests.start(new Slow(Command.READ, CommandFlags.NONE, 9, 50, 300, memory));
    requests.awaitNone();
    assertThat(channel.written())
        .isEqualTo(Bytes.of().u32(0x67446698).u32(0).u64(9).raw(Bytes.random(1, 300)).toArray());
  }

  @Test
  void aPlaceThatIsNotUsedIsGivenBack() throws IOException {
    SlowRequests requests = requests();
    requests.giveBack(requests.take(64 << 10, batch));
    requests.giveBack(requests.take(0, batch));
    requests.awaitNone();
    assertThat(budget.taken()).isZero();
  }

  @Test
  void whatIsReadyIsSentBeforeARequestWaitsForAPlace() throws Exception {
    SlowRequests requests = requests();
    Memory first = requests.take((int) InFlight.MAXIMUM_BYTES, batch);
    batch.add(nbd.protocol.NbdError.NONE, 3);
    assertThat(channel.written()).isEmpty();
    Thread waiting =
        Thread.ofVirtual()
            .start(
                () -> {
                  try {
                    requests.giveBack(requests.take(1, batch));
                  } catch (IOException impossible) {
                    throw new AssertionError(impossible);
                  }
                });
    nbd.testing.Eventually.isTrue("the reply is sent", () -> channel.written().length == 16);
    requests.giveBack(first);
    waiting.join();
  }
}
