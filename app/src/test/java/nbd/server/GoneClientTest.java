package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.stream.Stream;
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
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Clients that go away at any byte, in any way: nothing half done is done, nothing is left over.
 */
@Timeout(120)
final class GoneClientTest {
  private static final int SIZE = 4 << 20;

  static Stream<Arguments> transportsAndWays() {
    return Stream.of(Leave.values())
        .flatMap(way -> Stream.of(Arguments.of(false, way), Arguments.of(true, way)));
  }

  /** A whole conversation, of which only the beginning will be sent. */
  private static byte[] handshake() {
    return Bytes.of()
        .u32(3)
        .raw(RawClient.optionBytes(RawClient.LIST))
        .raw(RawClient.optionBytes(99, new byte[20]))
        .raw(RawClient.optionBytes(RawClient.OPT_INFO, RawClient.infoData("", 1, 3)))
        .raw(RawClient.optionBytes(RawClient.GO, RawClient.infoData("", 3)))
        .toArray();
  }

  @ParameterizedTest
  @MethodSource("transportsAndWays")
  void aClientMayLeaveAfterEveryByteOfTheHandshake(boolean tcp, Leave way) throws Exception {
    byte[] all = handshake();
    try (TestServer server = TestServer.with(new MemoryBackend(SIZE)).tcp(tcp).start()) {
      List<RawClient> gone = new ArrayList<>();
      for (int length = 0; length <= all.length; length++) {
        RawClient client = server.connect();
        gone.add(client);
        client.send(Arrays.copyOf(all, length));
        way.now(client);
      }
      server.awaitHandles(1);
      closeAll(gone);
    }
  }

  @ParameterizedTest
  @MethodSource("transportsAndWays")
  void aClientMayLeaveAfterEveryByteOfARequest(boolean tcp, Leave way) throws Exception {
    try (TestServer server = TestServer.with(new MemoryBackend(SIZE)).tcp(tcp).start()) {
      byte[] before = Bytes.random(13, 64);
      server.witness().write(0, before);
      List<RawClient> gone = new ArrayList<>();
      for (int type : new int[] {0, 1, 2, 3, 4, 5, 6, 7, 99}) {
        int payload = type == RawClient.WRITE ? 12 : 0;
        int length = type == RawClient.FLUSH ? 0 : 12;
        byte[] request =
            Bytes.of()
                .raw(RawClient.requestBytes(0, type, 1, type == RawClient.READ ? 0 : 4, length))
                .raw(new byte[payload])
                .toArray();
        boolean writes = type == RawClient.WRITE || type == RawClient.TRIM || type == 6;
        int end = writes ? request.length - 1 : request.length;
        for (int sent = 0; sent <= end; sent++) {
          RawClient client = server.client();
          gone.add(client);
          client.send(Arrays.copyOf(request, sent));
          way.now(client);
        }
      }
      server.awaitHandles(1);
      closeAll(gone);
      assertThat(server.witness().read(0, 64)).as("nothing was written in part").isEqualTo(before);
    }
  }

  private static void closeAll(List<RawClient> clients) throws IOException {
    for (RawClient client : clients) {
      client.close();
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

  @ParameterizedTest
  @MethodSource("transportsAndWays")
  void aClientMayLeaveWhileALongReplyIsSent(boolean tcp, Leave way) throws Exception {
    try (TestServer server = TestServer.with(new MemoryBackend(SIZE)).tcp(tcp).start()) {
      for (int taken : new int[] {0, 1, 15, 16, 17, 5000, 100_000}) {
        RawClient client = RawClient.connectNarrow(server.address());
        client.enter("");
        for (int i = 0; i < 10; i++) {
          client.request(0, RawClient.READ, i, 0, SIZE);
        }
        client.take(taken);
        way.now(client);
        if (way == Leave.HALF_CLOSE) {
          client.close();
        }
      }
      server.awaitHandles(1);
    }
  }

  /**
   * The kernel sends what it has no reply for again, on another connection: a write that begins
   * here afterwards would undo what was written there since.
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
      // The server notices by the first reply, whose place the ones that wait then get in turn.
      // None
      // of them stays there, while the others that have begun are still held up.
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
