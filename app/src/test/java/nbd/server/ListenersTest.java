package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import nbd.memory.MemoryBackend;
import nbd.testing.Eventually;
import nbd.testing.Log;
import nbd.testing.RawClient;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.tinylog.Level;

/** A server with several listening sockets. */
@Timeout(300)
final class ListenersTest {
  private static final Duration PATIENCE = Duration.ofSeconds(60);

  private final ExecutorService threads = Executors.newCachedThreadPool();

  @TempDir private Path directory;
  private ServerSocketChannel tcp;
  private ServerSocketChannel unix;
  private Server server;
  private Future<?> serving;

  private void start(int maxConnections) throws IOException {
    Log.clear();
    tcp = ServerSocketChannel.open();
    tcp.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    unix = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    unix.bind(UnixDomainSocketAddress.of(directory.resolve("socket")));
    Exports exports =
        new Exports(new MemoryBackend(1 << 20), List.of(""), "", false, maxConnections);
    server =
        new Server(
            ListeningSocket.own(List.of(tcp, unix)),
            exports,
            PATIENCE,
            Server.MINIMUM_MEMORY,
            TlsPolicy.OFF);
    serving = threads.submit(server::serve);
  }

  @AfterEach
  void stop() throws Exception {
    assertThat(server.stop(PATIENCE)).isTrue();
    serving.get();
    threads.close();
    assertThat(tcp.isOpen() || unix.isOpen()).isFalse();
  }

  private static RawClient client(ServerSocketChannel listener) throws IOException {
    RawClient client = RawClient.connect(listener.getLocalAddress());
    client.enter("");
    return client;
  }

  private static boolean isWaitingLogged() {
    return Log.at(Level.INFO).stream().anyMatch(line -> line.contains("a client waits"));
  }

  @Test
  void clientsOfAllSocketsShareTheExport() throws Exception {
    start(0);
    try (RawClient one = client(tcp);
        RawClient other = client(unix)) {
      one.write(7, (byte) 8).flush();
      assertThat(other.read(7, 1)).containsExactly(8);
      assertThat(server.isAccepting()).isTrue();
      assertThat(server.accepted()).isEqualTo(2);
      one.disconnect();
      other.disconnect();
    }
  }

  @Test
  void theLimitCountsClientsOfAllSockets() throws Exception {
    start(1);
    for (int round = 0; round < 2; round++) {
      ServerSocketChannel first = round == 0 ? tcp : unix;
      ServerSocketChannel second = round == 0 ? unix : tcp;
      Log.clear();
      try (RawClient served = client(first);
          RawClient waiting = RawClient.connect(second.getLocalAddress())) {
        Eventually.isTrue("it waits", ListenersTest::isWaitingLogged);
        served.write(0, (byte) 1).flush().disconnect();
        waiting.enter("");
        waiting.disconnect();
      }
      Eventually.isTrue("both are gone", () -> server.connections() == 0);
    }
  }

  @Test
  void aClientThatWaitsForAPlaceEndsWithTheServer() throws Exception {
    start(1);
    SocketAddress address = unix.getLocalAddress();
    try (RawClient served = client(tcp);
        RawClient waiting = RawClient.connect(unix.getLocalAddress())) {
      Eventually.isTrue("it waits", ListenersTest::isWaitingLogged);
      assertThat(server.stop(PATIENCE)).isTrue();
      waiting.expectEnd();
      served.expectEnd();
    }
    serving.get();
    assertThat(server.isAccepting()).isFalse();
    assertThatThrownBy(() -> SocketChannel.open(address)).isInstanceOf(IOException.class);
  }
}
