package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.protocol.Command;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import nbd.threads.ConnectionThreads;
import nbd.transmission.Admission;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The end of a server, and its limit on clients. */
@Timeout(300)
final class ServerStopTest {
  private static final Duration LONG = Duration.ofMinutes(2);

  private static CompletableFuture<Boolean> stop(TestServer server) {
    return CompletableFuture.supplyAsync(
        () -> {
          try {
            return server.stop(LONG);
          } catch (InterruptedException interrupted) {
            throw new AssertionError(interrupted);
          }
        });
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void whatIsInFlightIsFinishedAndAnswered(boolean tcp) throws Exception {
    CountDownLatch begun = new CountDownLatch(2);
    CountDownLatch go = new CountDownLatch(1);
    FakeBackend fake = new FakeBackend(4096);
    try (TestServer server = TestServer.with(fake).tcp(tcp).start();
        RawClient client = server.client();
        RawClient idle = server.client()) {
      fake.hook(
          call -> {
            begun.countDown();
            Eventually.await(go);
          });
      client.request(0, RawClient.WRITE, 1, 0, 1, (byte) 5);
      client.request(0, RawClient.FLUSH, 2, 0, 0);
      Eventually.await(begun);
      CompletableFuture<Boolean> stopped = stop(server);
      idle.expectEnd();
      assertThat(stopped).isNotDone();
      go.countDown();
      assertThat(client.expectReply(0) + client.expectReply(0)).isEqualTo(3);
      client.expectEnd();
      assertThat(stopped.get()).isTrue();
      assertThat(fake.count(Command.WRITE)).isEqualTo(1);
    }
  }

  @Test
  void whatWasReceivedBeforeIsAnswered() throws Exception {
    try (TestServer server = TestServer.of(new MemoryBackend(4096));
        RawClient client = server.client()) {
      // The reply to the last says that all of them have been received.
      for (int i = 0; i < 100; i++) {
        client.request(0, RawClient.WRITE, i, i, 1, (byte) i);
      }
      for (int i = 0; i < 100; i++) {
        client.expectReply(0, i);
      }
      CompletableFuture<Boolean> stopped = stop(server);
      client.expectEnd();
      assertThat(stopped.get()).isTrue();
    }
  }

  /** The half request is the server's doing: the client is not gone, and waits for the others. */
  @Test
  void whatWasReceivedBeforeHalfARequestIsDoneAndAnswered() throws Exception {
    int most = Admission.MAXIMUM_REQUESTS;
    int more = 100;
    CountDownLatch begun = new CountDownLatch(most);
    CountDownLatch go = new CountDownLatch(1);
    FakeBackend fake = new FakeBackend(4096);
    try (TestServer server = TestServer.with(fake).start();
        RawClient client = server.client();
        RawClient idle = server.client();
        RawClient idleToo = server.client()) {
      fake.hook(
          call -> {
            begun.countDown();
            Eventually.await(go);
          });
      for (int i = 0; i < most; i++) {
        client.request(0, RawClient.WRITE, i, i, 1, (byte) 1);
      }
      Eventually.await(begun);
      // All of this arrives at once. The refusal of the first says that it has, and that the next
      // waits for a place.
      Bytes rest = Bytes.of().raw(RawClient.requestBytes(0, 99, 77, 0, 0));
      for (int i = most; i < most + more; i++) {
        rest.raw(RawClient.requestBytes(0, RawClient.WRITE, i, i, 1)).raw((byte) 1);
      }
      client.send(rest.raw(new byte[] {0x25, 0x60}).toArray());
      client.expectReply(RawClient.EINVAL, 77);
      CompletableFuture<Boolean> stopped = stop(server);
      idle.expectEnd();
      idleToo.expectEnd();
      go.countDown();
      for (int i = 0; i < most + more; i++) {
        client.expectReply(0);
      }
      client.expectEnd();
      assertThat(stopped.get()).isTrue();
      assertThat(fake.count(Command.WRITE)).isEqualTo(most + more);
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void newConnectionsAreRefused(boolean tcp) throws Exception {
    try (TestServer server = TestServer.with(new NullBackend(4096)).tcp(tcp).start()) {
      assertThat(server.stop(LONG)).isTrue();
      assertThatThrownBy(server::connect).isInstanceOf(IOException.class);
    }
  }

  @Test
  void handshakesAreEndedAtOnce() throws Exception {
    try (TestServer server = TestServer.of(new NullBackend(4096));
        RawClient silent = server.connect();
        RawClient looking = server.connect()) {
      silent.greeting();
      looking.hello(3).option(RawClient.OPT_INFO, RawClient.infoData(""));
      looking.expectInfos(RawClient.OPT_INFO);
      assertThat(server.stop(LONG)).isTrue();
      silent.expectEnd();
      looking.expectEnd();
    }
  }

  @Test
  void aClientThatDoesNotReadIsCutAfterSomePatience() throws Exception {
    int size = 32 << 20;
    try (TestServer server = TestServer.of(new MemoryBackend(size));
        RawClient greedy = server.client()) {
      for (int i = 0; i < 10; i++) {
        greedy.request(0, RawClient.READ, i, 0, size);
      }
      Eventually.isTrue("it is served", () -> server.server().memoryInFlight() > size);
      assertThat(server.stop(Duration.ofMillis(200))).as("all ended by themselves").isFalse();
      server.awaitHandles(0);
    }
  }

  /** The accept loop stops a connection that came late, whether it has been stopped or not. */
  @Test
  void aConnectionThatIsStoppedTwiceStillFinishesWhatIsInFlight() throws Exception {
    CountDownLatch begun = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    FakeBackend fake = new FakeBackend(4096);
    fake.hook(
        call -> {
          begun.countDown();
          Eventually.await(go);
        });
    ScheduledThreadPoolExecutor timer = new ScheduledThreadPoolExecutor(1);
    try (ServerSocketChannel listener = ServerSocketChannel.open()) {
      listener.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
      try (RawClient client = RawClient.connect(listener.getLocalAddress())) {
        Connection connection =
            new Connection(
                1,
                listener.accept(),
                new ExportView(new Exports(fake, List.of(""), "", false, 0)),
                new Admission(Admission.MINIMUM_BYTES, LONG),
                LONG,
                timer,
                () -> true,
                new ConnectionThreads(() -> 1),
                TlsPolicy.OFF,
                Server.READ_AHEAD,
                Optional.empty(),
                _ -> {});
        Thread thread = Thread.ofVirtual().start(connection);
        client.enter("");
        client.request(0, RawClient.WRITE, 1, 0, 1, (byte) 5);
        Eventually.await(begun);
        connection.stop();
        connection.stop();
        go.countDown();
        client.expectReply(0, 1).expectEnd();
        thread.join();
      }
    } finally {
      timer.shutdownNow();
    }
  }

  @Test
  void theSecondClientWaitsUntilTheFirstHasLeft() throws Exception {
    try (TestServer server = TestServer.with(new NullBackend(4096)).maxConnections(1).start();
        RawClient first = server.client();
        RawClient second = server.connect()) {
      CompletableFuture<Void> greeted =
          CompletableFuture.runAsync(
              () -> {
                try {
                  second.enter("");
                } catch (IOException failure) {
                  throw new java.io.UncheckedIOException(failure);
                }
              });
      for (int i = 0; i < 1000; i++) {
        first.read(0, 1);
      }
      assertThat(greeted).isNotDone();
      assertThat(server.contract().openHandles()).isEqualTo(1);
      first.disconnect();
      greeted.get();
      second.disconnect();
    }
  }

  @Test
  void aServerAtItsLimitStops() throws Exception {
    try (TestServer server = TestServer.with(new NullBackend(4096)).maxConnections(1).start();
        RawClient first = server.client()) {
      assertThat(server.stop(LONG)).isTrue();
      first.expectEnd();
    }
  }

  @Test
  void placesOfClientsThatFailedInTheHandshakeAreFreeAgain() throws Exception {
    try (TestServer server = TestServer.with(new NullBackend(4096)).maxConnections(2).start()) {
      for (int i = 0; i < 20; i++) {
        try (RawClient client = server.connect()) {
          client.hello(0xff).expectEnd();
        }
      }
      server.client().disconnect();
    }
  }
}
