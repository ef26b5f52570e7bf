package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import nbd.memory.MemoryBackend;
import nbd.protocol.Command;
import nbd.storage.Backend;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.Leave;
import nbd.testing.RawClient;
import nbd.transmission.Admission;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Requests of clients that go away: nothing half received is done, nothing is left over. */
@Timeout(300)
final class GoneClientTest {
  private static final int SIZE = 4 << 20;

  private static void closeAll(List<RawClient> clients) throws IOException {
    for (RawClient client : clients) {
      client.close();
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aClientThatDoesNotWaitForItsAbortHarmsNothing(boolean tcp) throws Exception {
    try (TestServer server = TestServer.with(new MemoryBackend(SIZE)).tcp(tcp).start()) {
      for (int i = 0; i < 20; i++) {
        server.connect().hello(3).option(RawClient.ABORT).reset();
      }
    }
  }

  /** Payloads that fit the input's buffer, and that do not; a byte is missing from each. */
  @ParameterizedTest
  @EnumSource
  void aPayloadThatArrivesInPartIsNeverWritten(Leave way) throws Exception {
    for (Backend backend : List.of(new MemoryBackend(SIZE), new FakeBackend(SIZE))) {
      try (TestServer server = TestServer.of(backend)) {
        byte[] before = Bytes.random(14, SIZE);
        server.witness().write(0, before);
        List<RawClient> gone = new ArrayList<>();
        for (int length : new int[] {2, 4096, 32_768, 32_769, 65_536, 1 << 20, SIZE}) {
          RawClient client = server.client();
          gone.add(client);
          client.request(0, RawClient.WRITE, 1, 0, length, new byte[length - 1]);
          way.now(client);
        }
        server.awaitHandles(1);
        closeAll(gone);
        assertThat(Arrays.equals(server.witness().read(0, SIZE), before)).isTrue();
      }
    }
  }

  @Test
  void aHalfClosedClientStillGetsItsReplies() throws Exception {
    try (TestServer server = TestServer.of(new MemoryBackend(SIZE));
        RawClient client = server.client()) {
      byte[] data = Bytes.random(15, 1000);
      client.request(0, RawClient.WRITE, 1, 0, 1000, data);
      client.request(0, RawClient.READ, 2, 0, 1000).halfClose();
      client.expectReply(0, 1).expectReply(0, 2);
      assertThat(client.take(1000)).isEqualTo(data);
      client.expectEnd();
    }
  }

  /**
   * The kernel repeats requests without a reply on another connection: a write that began here
   * afterwards would undo what was written there since.
   */
  @Test
  void writesThatHaveNotBegunWhenTheClientIsGoneDoNotBegin() throws Exception {
    int most = Admission.MAXIMUM_REQUESTS;
    CountDownLatch begun = new CountDownLatch(most);
    Semaphore turns = new Semaphore(0);
    FakeBackend fake = new FakeBackend(SIZE);
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      fake.hook(
          call -> {
            begun.countDown();
            turns.acquireUninterruptibly();
          });
      for (int i = 0; i < most + 50; i++) {
        client.request(0, RawClient.WRITE, i, i, 1, (byte) 1);
      }
      Eventually.await(begun);
      client.reset();
      // The server learns of the reset from its first reply. No waiting request stays admitted,
      // while those that have begun are still held.
      turns.release(1);
      long others = (4096L + Admission.REQUEST_BYTES) * (most - 1);
      Eventually.isTrue("none began", () -> server.server().memoryInFlight() == others);
      turns.release(most + 50);
      server.awaitHandles(1);
      assertThat(fake.count(Command.WRITE)).isEqualTo(most);
    }
  }

  @Test
  void whatHasBegunWhenTheClientIsGoneIsFinished() throws Exception {
    CountDownLatch begun = new CountDownLatch(3);
    CountDownLatch go = new CountDownLatch(1);
    FakeBackend fake = new FakeBackend(SIZE);
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      fake.hook(
          call -> {
            begun.countDown();
            Eventually.await(go);
          });
      for (int i = 0; i < 3; i++) {
        client.request(0, RawClient.WRITE, i, i, 1, (byte) 1);
      }
      Eventually.await(begun);
      client.reset();
      assertThat(server.contract().openHandles()).isEqualTo(2);
      go.countDown();
      server.awaitHandles(1);
      fake.hook(call -> {});
      assertThat(server.witness().read(0, 3)).containsOnly(1);
    }
  }
}
