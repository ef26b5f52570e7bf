package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.HashSet;
import java.util.Set;
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
 * A client that has waited for each reply before it sent the next request, so that its thread makes
 * calls that wait for storage without another thread that receives; and then does something else.
 */
@Timeout(300)
final class LoneRequestsTest {
  private static final int SIZE = 1 << 20;
  private static final int FUA = CommandFlag.FUA.bit();

  /** The offset of the lone requests, which no hook holds up. */
  private static final int ELSEWHERE = SIZE - 1;

  private final CountDownLatch go = new CountDownLatch(1);
  private final FakeBackend fake = new FakeBackend(SIZE);

  private static RawClient lone(TestServer server) throws Exception {
    RawClient client = server.client();
    for (int i = 0; i < 12; i++) {
      client.call(0, FUA, RawClient.WRITE, ELSEWHERE, 1, new byte[1]);
    }
    return client;
  }

  private void holdUp(Command command) {
    fake.hook(
        call -> {
          if (call.command() == command && call.offset() == 0) {
            Eventually.await(go);
          }
        });
  }

  @Test
  void oneThatTakesLongHoldsUpNothing() throws Exception {
    holdUp(Command.FLUSH);
    try (TestServer server = TestServer.of(fake);
        RawClient client = lone(server)) {
      client.request(0, RawClient.FLUSH, 1, 0, 0);
      Eventually.isTrue("it has begun", () -> fake.count(Command.FLUSH) == 1);
      byte[] data = Bytes.random(1, 4096);
      client.write(300, data);
      assertThat(client.read(300, data.length)).isEqualTo(data);
      go.countDown();
      client.expectReply(0, 1);
      client.flush();
      client.disconnect();
    }
  }

  @Test
  void whatCameTogetherRunsTogether() throws Exception {
    CountDownLatch both = new CountDownLatch(2);
    fake.hook(
        call -> {
          if (call.offset() < 2) {
            both.countDown();
            Eventually.await(both);
          }
        });
    try (TestServer server = TestServer.of(fake);
        RawClient client = lone(server)) {
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
  void aReadThatTakesLongHoldsUpNoneThatCameWithIt() throws Exception {
    holdUp(Command.READ);
    try (TestServer server = TestServer.of(fake);
        RawClient client = lone(server)) {
      int count = 100;
      Bytes together = Bytes.of();
      for (int i = 0; i < count; i++) {
        together.raw(RawClient.requestBytes(0, RawClient.READ, i, i, 1));
      }
      client.send(together.toArray());
      Set<Long> answered = new HashSet<>();
      for (int i = 1; i < count; i++) {
        answered.add(client.expectReply(0));
        client.take(1);
      }
      assertThat(answered).hasSize(count - 1).doesNotContain(0L);
      go.countDown();
      client.expectReply(0, 0);
      client.take(1);
      client.disconnect();
    }
  }

  @Test
  void theReplyToAnEarlierRequestDoesNotWait() throws Exception {
    fake.quick(operation -> operation.command() == Command.READ);
    holdUp(Command.FLUSH);
    try (TestServer server = TestServer.of(fake);
        RawClient client = lone(server)) {
      client.send(
          Bytes.of()
              .raw(RawClient.requestBytes(0, RawClient.READ, 1, 0, 1))
              .raw(RawClient.requestBytes(0, RawClient.FLUSH, 2, 0, 0))
              .toArray());
      client.expectReply(0, 1);
      client.take(1);
      go.countDown();
      client.expectReply(0, 2);
      client.disconnect();
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
        RawClient client = lone(server)) {
      server.expectErrors();
      client.call(RawClient.ENOSPC, FUA, RawClient.WRITE, 1, 1, new byte[1]);
      client.call(0, FUA, RawClient.WRITE, 2, 1, new byte[1]).disconnect();
    }
  }

  @Test
  void longOnesAreWrittenToo() throws Exception {
    byte[] data = Bytes.random(2, SIZE);
    try (TestServer server = TestServer.of(fake);
        RawClient client = lone(server)) {
      client.call(0, FUA, RawClient.WRITE, 0, SIZE, data);
      assertThat(client.read(0, SIZE)).isEqualTo(data);
      client.disconnect();
    }
  }

  @Test
  void aClientThatGoesMeanwhileHarmsNobody() throws Exception {
    holdUp(Command.FLUSH);
    try (TestServer server = TestServer.of(fake)) {
      try (RawClient client = lone(server)) {
        client.request(0, RawClient.FLUSH, 1, 0, 0);
        Eventually.isTrue("it has begun", () -> fake.count(Command.FLUSH) == 1);
      }
      go.countDown();
      server.witness().flush();
    }
  }
}
