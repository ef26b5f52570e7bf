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
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import nbd.filter.ErrorFilter;
import nbd.filter.ErrorRate;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.filter.SerializeFilter;
import nbd.memory.MemoryBackend;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.multiconn.TrackDirty;
import nbd.protocol.NbdError;
import nbd.storage.Backend;
import nbd.storage.ThreadModel;
import nbd.testing.Log;
import nbd.testing.Model;
import nbd.testing.RawClient;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.tinylog.Level;

/** A server that pauses under load, and goes on itself or leaves its clients to another one. */
@Timeout(300)
final class ServerPauseTest {
  private static final Duration LONG = Duration.ofSeconds(60);
  private static final int CLIENTS = 6;
  private static final int REGION = 256 << 10;
  private static final int PAUSES = 25;

  @TempDir private Path directory;

  private final long seed = Model.seed();
  private final Backend storage = new MemoryBackend((long) CLIENTS * REGION);
  private final List<Running> servers = new ArrayList<>();
  private volatile boolean enough;

  /** A server, and the thread that serves. */
  private record Running(Server server, FutureTask<Void> serving) {}

  @BeforeEach
  void forgetLog() {
    Log.clear();
  }

  @AfterEach
  void stop() throws Exception {
    for (Running each : servers) {
      each.server().stop(LONG);
      each.serving().get(60, TimeUnit.SECONDS);
      assertThat(each.server().connections()).isZero();
    }
    assertThat(Log.at(Level.ERROR)).isEmpty();
  }

  private static Exports exports(Backend backend) {
    Backend served =
        new FuaFilter(
            new MultiConnFilter(
                backend,
                new MultiConnSettings(MultiConnMode.AUTO, TrackDirty.CONNECTION, false, false)),
            FuaMode.PASS);
    return new Exports(served, List.of("disk"), "", false, 0);
  }

  private Running start(Server server) {
    FutureTask<Void> serving = new FutureTask<>(server::serve, null);
    Thread.ofPlatform().name("server under test").start(serving);
    Running running = new Running(server, serving);
    servers.add(running);
    return running;
  }

  private static Server server(List<ServerSocketChannel> listeners, Backend backend) {
    return server(listeners, exports(backend));
  }

  private static Server server(List<ServerSocketChannel> listeners, Exports exports) {
    return new Server(
        ListeningSocket.own(listeners), exports, LONG, Server.MINIMUM_MEMORY, TlsPolicy.OFF);
  }

  private List<ServerSocketChannel> listen() throws IOException {
    ServerSocketChannel tcp = ServerSocketChannel.open();
    tcp.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    ServerSocketChannel unix = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    unix.bind(UnixDomainSocketAddress.of(directory.resolve("socket")));
    return List.of(tcp, unix);
  }

  /** Writes and reads back batches of requests, which arrive together; counts the requests. */
  private final class Load implements java.util.concurrent.Callable<Integer> {
    private final SocketAddress address;
    private final int number;
    private final Random random;

    Load(SocketAddress address, int number) {
      this.address = address;
      this.number = number;
      this.random = new Random(seed + number);
    }

    @Override
    public Integer call() throws IOException {
      int count = 0;
      try (RawClient client = RawClient.connect(address)) {
        client.enter("disk");
        byte[] content = new byte[REGION];
        while (!enough) {
          count += write(client, content);
          count += read(client, content);
        }
        client.flush();
        client.disconnect();
      }
      return count;
    }

    private int write(RawClient client, byte[] content) throws IOException {
      int requests = 1 + random.nextInt(40);
      int at = 0;
      for (int i = 0; i < requests; i++) {
        byte[] data = new byte[1 + random.nextInt(i == 0 ? 100_000 : 4000)];
        random.nextBytes(data);
        System.arraycopy(data, 0, content, at, data.length);
        int flags = random.nextInt(20) == 0 ? RawClient.FUA : 0;
        client.request(flags, RawClient.WRITE, i, (long) number * REGION + at, data.length, data);
        at += data.length;
      }
      for (int i = 0; i < requests; i++) {
        client.expectReply(0);
      }
      return requests;
    }

    private int read(RawClient client, byte[] content) throws IOException {
      Map<Long, Integer> lengths = new HashMap<>();
      int requests = 1 + random.nextInt(40);
      for (int i = 0; i < requests; i++) {
        int length = 1 + random.nextInt(5000);
        int at = i * (REGION / 50) + random.nextInt(100);
        client.request(0, RawClient.READ, at, (long) number * REGION + at, length);
        lengths.put((long) at, length);
      }
      for (int i = 0; i < requests; i++) {
        long at = client.expectReply(0);
        byte[] data = client.take(lengths.get(at));
        assertThat(data)
            .as("seed %d, at %d", seed, at)
            .isEqualTo(java.util.Arrays.copyOfRange(content, (int) at, (int) at + data.length));
      }
      return requests;
    }
  }

  private List<FutureTask<Integer>> load(List<ServerSocketChannel> listeners) throws IOException {
    List<SocketAddress> addresses = new ArrayList<>();
    for (ServerSocketChannel listener : listeners) {
      addresses.add(listener.getLocalAddress());
    }
    List<FutureTask<Integer>> clients = new ArrayList<>();
    for (int i = 0; i < CLIENTS; i++) {
      clients.add(new FutureTask<>(new Load(addresses.get(i % addresses.size()), i)));
      Thread.ofPlatform().name("client " + i).start(clients.getLast());
    }
    return clients;
  }

  private void end(List<FutureTask<Integer>> clients) throws Exception {
    enough = true;
    for (FutureTask<Integer> client : clients) {
      assertThat(client.get(60, TimeUnit.SECONDS)).isPositive();
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void clientsNoticeNothingOfAPause(boolean waits) throws Exception {
    List<ServerSocketChannel> listeners = listen();
    // Requests that wait for each other are in flight for longer.
    Backend backend =
        waits ? new SerializeFilter(storage, ThreadModel.SERIALIZE_ALL_REQUESTS) : storage;
    Running running = start(server(listeners, backend));
    List<FutureTask<Integer>> clients = load(listeners);
    for (int i = 0; i < PAUSES; i++) {
      awaitClients(running.server(), clients);
      Server.Paused paused = running.server().pause(LONG);
      assertThat(running.server().connections()).isZero();
      paused.resume();
    }
    end(clients);
  }

  @Test
  void clientsNoticeNothingOfAnotherServer() throws Exception {
    List<ServerSocketChannel> listeners = listen();
    Running running = start(server(listeners, storage));
    List<FutureTask<Integer>> clients = load(listeners);
    for (int i = 0; i < PAUSES; i++) {
      awaitClients(running.server(), clients);
      Server.Paused paused = running.server().pause(LONG);
      List<ServerSocketChannel> handedOn = new ArrayList<>();
      for (ListeningSocket.Kept each : paused.listeners()) {
        handedOn.add(nbd.posix.AdoptedSocket.listener(each.socket().copy().release()));
      }
      Server next = server(handedOn, storage);
      for (Server.Client client : paused.clients()) {
        next.adopt(client.state(), client.socket().copy());
      }
      paused.leave();
      running.serving().get(60, TimeUnit.SECONDS);
      running = start(next);
    }
    end(clients);
  }

  @Test
  void aClientThatDoesNotEndItsRequestPreventsThePause() throws Exception {
    List<ServerSocketChannel> listeners = listen();
    SocketAddress address = listeners.getFirst().getLocalAddress();
    Running running = start(server(listeners, storage));
    try (RawClient slow = RawClient.connect(address);
        RawClient other = RawClient.connect(listeners.getLast().getLocalAddress())) {
      beginWrite(running.server(), slow, other);
      assertThatThrownBy(() -> running.server().pause(Duration.ofMillis(300)))
          .hasMessageContaining("connections have not come to the end of a request");
      slow.send(new byte[7]).expectReply(0, 1);
      assertThat(other.read(100, 1)).containsExactly(5);
      try (RawClient late = RawClient.connect(address)) {
        late.enter("disk");
      }
    }
  }

  @Test
  void aClientThatWaitsForItsPlaceDoesNotBlockThePause() throws Exception {
    List<ServerSocketChannel> listeners = listen();
    SocketAddress address = listeners.getFirst().getLocalAddress();
    Exports one = new Exports(storage, List.of("disk"), "", false, 1);
    Running running = start(server(listeners, one));
    try (RawClient first = RawClient.connect(address);
        RawClient second = RawClient.connect(address)) {
      first.enter("disk");
      first.write(0, (byte) 1);
      second.send((byte) 0, (byte) 0, (byte) 0, (byte) 3);
      // The second one has no place, gets that of the client that pauses, and is cut or goes on.
      running.server().pause(LONG).resume();
      first.write(1, (byte) 2);
      first.disconnect();
    }
    try (RawClient third = RawClient.connect(address)) {
      third.enter("disk");
      assertThat(third.read(0, 2)).containsExactly(1, 2);
    }
  }

  @Test
  void clientsWhoseFlushFailsAreCutAndTheServerGoesOn() throws Exception {
    List<ServerSocketChannel> listeners = listen();
    SocketAddress address = listeners.getFirst().getLocalAddress();
    Backend failing =
        new ErrorFilter(
            storage, ErrorRate.NONE, ErrorRate.NONE, new ErrorRate(1, NbdError.EIO), seed);
    Running running = start(server(listeners, failing));
    try (RawClient first = RawClient.connect(address);
        RawClient second = RawClient.connect(address)) {
      first.enter("disk");
      second.enter("disk");
      first.write(0, (byte) 1);
      second.write(1, (byte) 2);
      assertThatThrownBy(() -> running.server().pause(LONG)).hasMessageContaining("a flush failed");
      first.expectEnd();
      second.expectEnd();
    }
    try (RawClient late = RawClient.connect(address)) {
      late.enter("disk");
      assertThat(late.read(0, 2)).containsExactly(1, 2);
    }
    Log.clear();
  }

  @Test
  void bytesThatWereReadAheadGoAlong() throws Exception {
    List<ServerSocketChannel> listeners = listen();
    Running running = start(server(listeners, storage));
    try (RawClient client = RawClient.connect(listeners.getFirst().getLocalAddress())) {
      client.enter("disk");
      byte[] half = RawClient.requestBytes(0, RawClient.FLUSH, 7, 0, 0);
      client.send(java.util.Arrays.copyOf(half, 11));
      awaitClients(running.server(), 1);
      running.server().pause(LONG).resume();
      client.send(java.util.Arrays.copyOfRange(half, 11, half.length)).expectReply(0, 7);
    }
  }

  @Test
  void aClientThatDoesNotEndItsRequestIsCutWhereTheServerWillNotGoOn() throws Exception {
    List<ServerSocketChannel> listeners = listen();
    Running running = start(server(listeners, storage));
    try (RawClient slow = RawClient.connect(listeners.getFirst().getLocalAddress());
        RawClient other = RawClient.connect(listeners.getLast().getLocalAddress())) {
      beginWrite(running.server(), slow, other);
      Server.Paused paused = running.server().pauseToEnd(Duration.ofSeconds(5));
      assertThat(paused.clients()).hasSize(1);
      slow.expectEnd();
      paused.resume();
      assertThat(other.read(100, 1)).containsExactly(5);
    }
    assertThat(Log.at(Level.WARN))
        .singleElement()
        .asString()
        .contains("1 connections have not come to the end of a request in time");
  }

  @Test
  void aClientThatWouldFindLessIsRefused() throws Exception {
    List<ServerSocketChannel> listeners = listen();
    Running running = start(server(listeners, storage));
    try (RawClient client = RawClient.connect(listeners.getFirst().getLocalAddress())) {
      client.enter("disk");
      awaitClients(running.server(), 1);
      Server.Paused paused = running.server().pause(LONG);
      Server smaller = server(List.of(), new MemoryBackend(512));
      Server readOnly = server(List.of(), new Exports(storage, List.of("disk"), "", true, 0));
      Server renamed = server(List.of(), new Exports(storage, List.of("other"), "", false, 0));
      Server.Client it = paused.clients().getFirst();
      assertThatThrownBy(() -> smaller.adopt(it.state(), it.socket()))
          .hasMessageContaining("has 512 bytes, and had " + CLIENTS * REGION);
      assertThatThrownBy(() -> readOnly.adopt(it.state(), it.socket()))
          .hasMessageContaining("does not show");
      assertThatThrownBy(() -> renamed.adopt(it.state(), it.socket()))
          .hasMessageContaining("there is no export \"disk\" any more");
      paused.resume();
      client.write(0, (byte) 1);
      smaller.stop(LONG);
      readOnly.stop(LONG);
      renamed.stop(LONG);
    }
  }

  /** Sends a write of 8 bytes but for the last 7, and lets another client write 5 at 100. */
  private static void beginWrite(Server server, RawClient slow, RawClient other) throws Exception {
    other.enter("disk");
    slow.enter("disk");
    slow.send(RawClient.requestBytes(0, RawClient.WRITE, 1, 0, 8)).send((byte) 1);
    other.write(100, (byte) 5);
    nbd.testing.Eventually.isTrue(
        "both writes received",
        () -> server.connectionStates().stream().allMatch(each -> each.requests() == 1));
  }

  /** Waits until all clients are connected, unless one has failed. */
  private static void awaitClients(Server server, List<FutureTask<Integer>> clients)
      throws Exception {
    nbd.testing.Eventually.isTrue(
        "clients connected",
        () ->
            server.connections() == clients.size()
                || clients.stream().anyMatch(FutureTask::isDone));
    for (FutureTask<Integer> client : clients) {
      assertThat(client.isDone() ? "ended after " + client.get() : "").isEmpty();
    }
  }

  private static void awaitClients(Server server, int count) throws InterruptedException {
    nbd.testing.Eventually.isTrue("clients connected", () -> server.connections() == count);
  }
}
