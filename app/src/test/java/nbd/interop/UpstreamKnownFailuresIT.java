package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/**
 * The ways in which other filters of this kind break the promise of multi-conn, each played by real
 * clients in front of a server whose connections have a cache each. The tests look at the data that
 * the clients read and the disk holds, and at the order of requests in the server's log. Clients
 * are numbered from 1, as are the server's connections.
 */
@Timeout(300)
final class UpstreamKnownFailuresIT {
  private static final int ENOSPC = RawClient.ENOSPC;

  /** The cookie of requests whose replies are read later. */
  private static final long COOKIE = 77;

  @TempDir private Path directory;
  private final List<RawClient> clients = new ArrayList<>();
  private CachingPlugin plugin;
  private NbdkitLog log;
  private UpstreamProcess nbdkit;
  private ServeProcess serve;

  @BeforeEach
  void startUpstream() throws Exception {
    plugin = new CachingPlugin(directory);
    log = plugin.log();
    nbdkit = UpstreamProcess.nbdkit(directory, plugin.arguments());
  }

  @AfterEach
  void stop() throws Exception {
    for (RawClient client : clients) {
      client.close();
    }
    nbdkit.close();
    serve.close();
  }

  /** Starts the server with options, and connects clients. No opening that is held times out. */
  private List<RawClient> serve(int count, String... options) throws Exception {
    List<String> all = new ArrayList<>(List.of(options));
    all.addAll(List.of("--connect-timeout=10m", "--handshake-timeout=10m"));
    serve = ServeProcess.on(directory, nbdkit.uri(), all.toArray(String[]::new));
    for (int i = 0; i < count; i++) {
      connect("");
    }
    return clients;
  }

  private RawClient connect(String export) throws IOException {
    RawClient client = serve.client(export);
    clients.add(client);
    return client;
  }

  private static byte[] block(int content) {
    byte[] block = new byte[CachingPlugin.BLOCK];
    Arrays.fill(block, (byte) content);
    return block;
  }

  private static void write(RawClient client, int block, int content) throws IOException {
    client.write(at(block), block(content));
  }

  private static void startWrite(RawClient client, int block, int content) throws IOException {
    client.request(0, RawClient.WRITE, COOKIE, at(block), CachingPlugin.BLOCK, block(content));
  }

  private static void startFlush(RawClient client) throws IOException {
    client.request(0, RawClient.FLUSH, COOKIE, 0, 0);
  }

  private static byte read(RawClient client, int block) throws IOException {
    byte[] data = client.read(at(block), CachingPlugin.BLOCK);
    assertThat(data).isEqualTo(block(data[0]));
    return data[0];
  }

  private static long at(int block) {
    return (long) block * CachingPlugin.BLOCK;
  }

  @Test
  void withoutEmulationAnotherConnectionKeepsStaleDataAndWritesAreNotDurable() throws Exception {
    List<RawClient> client = serve(3, "--multi-conn-mode=unsafe");
    read(client.get(0), 0);
    write(client.get(1), 0, 'x');
    client.get(2).flush();

    assertThat(read(client.get(0), 0)).as("the upstream is as bad as it should be").isZero();
    assertThat(plugin.durable(0)).isZero();
    serve.stopQuietly();
  }

  @Test
  void withEmulationEveryFlushMakesEveryWriteDurableAndVisible() throws Exception {
    List<RawClient> client = serve(3);
    for (int round = 1; round <= 3; round++) {
      read(client.get(0), 0);
      write(client.get(1), 0, round);
      client.get(2).flush();

      assertThat(plugin.durable(0)).isEqualTo((byte) round);
      assertThat(read(client.get(0), 0)).isEqualTo((byte) round);
      assertThat(read(client.get(2), 0)).isEqualTo((byte) round);
    }
    serve.stopQuietly();
  }

  @Test
  void aForcedWriteIsDurableAndVisibleAtOnce() throws Exception {
    List<RawClient> client = serve(2);
    read(client.get(0), 5);
    client.get(1).call(0, RawClient.FUA, RawClient.WRITE, at(5), CachingPlugin.BLOCK, block('f'));

    assertThat(plugin.durable(5)).isEqualTo((byte) 'f');
    assertThat(read(client.get(0), 5)).isEqualTo((byte) 'f');
    serve.stopQuietly();
  }

  @Test
  void aWriteInFlightDuringAFlushIsCoveredByTheNext() throws Exception {
    List<RawClient> client = serve(2);
    write(client.get(0), 1, 'a');
    plugin.hold("pwrite", 1);
    startWrite(client.get(0), 2, 'b');
    plugin.awaitHeld("pwrite", 1);
    client.get(1).flush();
    assertThat(plugin.durable(1)).isEqualTo((byte) 'a');
    plugin.release("pwrite", 1);
    client.get(0).expectReply(0, COOKIE);

    client.get(1).flush();

    assertThat(plugin.durable(2)).isEqualTo((byte) 'b');
    assertThat(log.begin("Flush", 1, 2)).isGreaterThan(log.end("Write", 1, 2));
    serve.stopQuietly();
  }

  @Test
  void aWriteThatLandsWhileTheFlushWaitsForASlowHandleIsNotForgotten() throws Exception {
    List<RawClient> client = serve(3);
    write(client.get(0), 1, 'a');
    write(client.get(1), 2, 'b');
    plugin.hold("flush", 2);
    startFlush(client.get(2));
    plugin.awaitHeld("flush", 2);
    log.awaitReturned("Flush", 1, 1);
    write(client.get(0), 3, 'c');
    plugin.release("flush", 2);
    client.get(2).expectReply(0, COOKIE);

    client.get(2).flush();

    assertThat(plugin.durable(3)).isEqualTo((byte) 'c');
    serve.stopQuietly();
  }

  @Test
  void aReaderIsFlushedAfterTheWriter() throws Exception {
    List<RawClient> client = serve(3);
    read(client.get(0), 1);
    write(client.get(1), 1, 'x');
    plugin.hold("flush", 2);
    startFlush(client.get(2));
    plugin.awaitHeld("flush", 2);
    plugin.release("flush", 2);
    client.get(2).expectReply(0, COOKIE);

    assertThat(log.begin("Flush", 1, 1)).isGreaterThan(log.end("Flush", 2, 1));
    assertThat(read(client.get(0), 1)).isEqualTo((byte) 'x');
    serve.stopQuietly();
  }

  @Test
  void aReadInFlightOverAFlushKeepsNoStaleData() throws Exception {
    List<RawClient> client = serve(3);
    plugin.hold("pread", 1);
    client.get(0).request(0, RawClient.READ, COOKIE, at(1), CachingPlugin.BLOCK);
    plugin.awaitHeld("pread", 1);
    write(client.get(1), 1, 'x');
    startFlush(client.get(2));
    log.awaitReturned("Flush", 2, 1);
    plugin.release("pread", 1);
    client.get(0).expectReply(0, COOKIE).take(CachingPlugin.BLOCK);
    client.get(2).expectReply(0, COOKIE);

    assertThat(log.begin("Flush", 1, 1)).isGreaterThan(log.end("Read", 1, 1));
    assertThat(read(client.get(0), 1)).isEqualTo((byte) 'x');
    serve.stopQuietly();
  }

  @Test
  void whatAClosedConnectionHasWrittenIsInTheNextFlush() throws Exception {
    List<RawClient> client = serve(2);
    read(client.get(1), 1);
    write(client.get(0), 1, 'x');
    client.get(0).disconnect();

    client.get(1).flush();

    assertThat(plugin.durable(1)).isEqualTo((byte) 'x');
    assertThat(read(client.get(1), 1)).isEqualTo((byte) 'x');
    serve.stopQuietly();
  }

  @Test
  void aClientThatComesBackFlushesWhatItHadWritten() throws Exception {
    List<RawClient> client = serve(2);
    write(client.get(0), 1, 'x');
    client.get(0).reset();

    connect("").flush();

    assertThat(plugin.durable(1)).isEqualTo((byte) 'x');
    serve.stopQuietly();
  }

  @Test
  void aHandleWhoseFlushFailsDoesNotKeepTheOthersFromBeingFlushed() throws Exception {
    List<RawClient> client = serve(4);
    for (int i = 0; i < 3; i++) {
      write(client.get(i), i, 'x');
    }
    plugin.fail("flush", 1, "ENOSPC");

    client.get(3).call(ENOSPC, 0, RawClient.FLUSH, 0, 0);

    assertThat(log.flushed()).containsExactlyInAnyOrder(1, 2, 3);
    assertThat(plugin.durable(1)).isEqualTo((byte) 'x');
    assertThat(plugin.durable(2)).isEqualTo((byte) 'x');
    client.get(3).call(ENOSPC, 0, RawClient.FLUSH, 0, 0);
    plugin.mend("flush", 1);
    client.get(3).flush();
    assertThat(log.flushed()).endsWith(1, 1).hasSize(5);
    serve.stop();
  }

  @Test
  void aFlushMeetsNothingThatTheThreadModelExcludes() throws Exception {
    List<RawClient> client = serve(3, "--thread-model=serialize-requests");
    write(client.get(0), 1, 'a');
    write(client.get(2), 2, 'c');
    plugin.hold("pwrite", 1);
    startWrite(client.get(0), 3, 'b');
    plugin.awaitHeld("pwrite", 1);
    startFlush(client.get(1));
    log.awaitReturned("Flush", 3, 1);
    plugin.release("pwrite", 1);
    client.get(0).expectReply(0, COOKIE);
    client.get(1).expectReply(0, COOKIE);

    assertThat(log.begin("Flush", 1, 1)).isGreaterThan(log.end("Write", 1, 2));
    assertThat(plugin.durable(1)).isEqualTo((byte) 'a');
    serve.stopQuietly();
  }

  @Test
  void aSlowFlushKeepsNobodyFromConnectingToThisOrAnotherExport() throws Exception {
    serve(0, "--dynamic-export", "--multi-conn-exportname");
    RawClient slow = connect("a");
    write(slow, 1, 'a');
    plugin.hold("flush", 1);
    startFlush(slow);
    plugin.awaitHeld("flush", 1);

    RawClient same = connect("a");
    write(same, 2, 'b');
    RawClient other = connect("b");
    write(other, 3, 'c');
    other.flush();
    assertThat(plugin.durable(3)).isEqualTo((byte) 'c');
    other.disconnect();
    log.awaitDisconnected(1);

    plugin.release("flush", 1);
    slow.expectReply(0, COOKIE);
    same.flush();
    assertThat(plugin.durable(2)).isEqualTo((byte) 'b');
    serve.stopQuietly();
  }

  @Test
  void aSilentClientAndASlowOpeningBlockNobody() throws Exception {
    serve(0);
    try (RawClient silent = RawClient.connect(serve.address());
        RawClient slow = RawClient.connect(serve.address())) {
      silent.greeting();
      plugin.hold("open", 1);
      slow.hello(3).option(RawClient.GO, RawClient.infoData(""));
      plugin.awaitHeld("open", 1);

      RawClient client = connect("");
      write(client, 1, 'x');
      client.flush();
      assertThat(plugin.durable(1)).isEqualTo((byte) 'x');
      client.disconnect();

      plugin.release("open", 1);
      slow.expectInfos(RawClient.GO);
      slow.disconnect();
      silent.reset();
      serve.stopQuietly();
    }
  }

  @Test
  void aClientThatLeavesInTheMiddleOfGoHarmsNobodyAndLeavesNoConnection() throws Exception {
    RawClient client = serve(1).getFirst();
    write(client, 1, 'x');
    plugin.hold("open", 2);
    try (RawClient leaving = RawClient.connect(serve.address())) {
      leaving.hello(3).option(RawClient.GO, RawClient.infoData(""));
      plugin.awaitHeld("open", 2);
    }
    plugin.release("open", 2);
    Eventually.isTrue(
        "the upstream's connection for it has ended",
        () -> log.events().stream().anyMatch(e -> e.what().equals("Disconnect")));

    client.flush();
    assertThat(plugin.durable(1)).isEqualTo((byte) 'x');
    serve.stopQuietly();
  }
}
