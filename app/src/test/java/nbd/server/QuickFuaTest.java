package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * The thread that makes a write with FUA where the storage says that these are quick: the
 * connection's own, unless another request would have to wait for it.
 */
@Timeout(300)
final class QuickFuaTest {
  private static final int SIZE = 1 << 20;
  private static final int FUA = CommandFlag.FUA.bit();

  private final List<Thread> threads = new CopyOnWriteArrayList<>();
  private final FakeBackend fake = new FakeBackend(SIZE).quickFua();

  @Test
  void theConnectionsThreadMakesThoseThatAreAlone() throws Exception {
    fake.hook(call -> threads.add(Thread.currentThread()));
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client();
        RawClient other = server.client()) {
      byte[] data = Bytes.random(1, 4096);
      client.call(0, FUA, RawClient.WRITE, 0, 4096, data);
      client.call(0, FUA, RawClient.WRITE, 4096, 1, new byte[1]);
      other.call(0, FUA, RawClient.WRITE, 8192, 1, new byte[1]);
      assertThat(threads.get(0)).isSameAs(threads.get(1)).isNotSameAs(threads.get(2));
      assertThat(fake.calls()).allMatch(call -> call.flags().has(CommandFlag.FUA));
      assertThat(client.read(0, 4096)).isEqualTo(data);
      client.disconnect();
      other.disconnect();
    }
  }

  @Test
  void whatCameTogetherRunsTogether() throws Exception {
    CountDownLatch both = new CountDownLatch(2);
    fake.hook(
        call -> {
          both.countDown();
          Eventually.await(both);
        });
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      client.send(
          Bytes.of()
              .raw(RawClient.requestBytes(FUA, RawClient.WRITE, 1, 0, 1))
              .raw((byte) 1)
              .raw(RawClient.requestBytes(FUA, RawClient.WRITE, 2, 1, 1))
              .raw((byte) 2)
              .toArray());
      client.expectReply(0);
      client.expectReply(0);
      client.disconnect();
    }
  }

  @Test
  void besideAnotherRequestItHoldsUpNothing() throws Exception {
    CountDownLatch begun = new CountDownLatch(2);
    CountDownLatch go = new CountDownLatch(1);
    fake.hook(
        call -> {
          if (call.offset() < 10) {
            begun.countDown();
            Eventually.await(go);
          }
        });
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      client.request(0, RawClient.TRIM, 1, 0, 1);
      Eventually.isTrue("it has begun", () -> fake.count(Command.TRIM) == 1);
      client.request(FUA, RawClient.WRITE, 2, 1, 1, new byte[1]);
      Eventually.await(begun);
      client.write(300, new byte[10]).read(300, 10);
      go.countDown();
      client.expectReply(0);
      client.expectReply(0);
    }
  }

  @Test
  void aFailureIsAnswered() throws Exception {
    fake.hook(
        call -> {
          if (call.offset() == 1) {
            throw new NbdException(NbdError.ENOSPC, "it is full");
          }
        });
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      server.expectErrors();
      client.call(RawClient.ENOSPC, FUA, RawClient.WRITE, 1, 1, new byte[1]);
      client.call(0, FUA, RawClient.WRITE, 2, 1, new byte[1]).disconnect();
    }
  }

  @Test
  void longOnesAreWrittenToo() throws Exception {
    byte[] data = Bytes.random(2, SIZE);
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      client.call(0, FUA, RawClient.WRITE, 0, SIZE, data);
      assertThat(client.read(0, SIZE)).isEqualTo(data);
      client.disconnect();
    }
  }
}
