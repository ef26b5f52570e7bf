package nbd.server;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import nbd.file.DirectoryBackend;
import nbd.file.FileSettings;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.storage.Backend;
import nbd.testing.BitmapBackend;
import nbd.testing.CheckedClient;
import nbd.testing.ContractBackend;
import nbd.testing.Eventually;
import nbd.testing.Log;
import nbd.testing.RawClient;
import nbd.testing.RawClient.Reply;
import nbd.testing.Replies;
import nbd.testing.TestCertificates;
import nbd.tls.TlsClient;
import nbd.tls.TlsServer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.tinylog.Level;

/** Listening sockets whose names restrict their clients to one export. */
@Timeout(300)
final class SocketNamesTest {
  private static final Duration PATIENCE = Duration.ofMinutes(2);
  private static final long SIZE = 1 << 20;
  private static final long OTHER_SIZE = 2 << 20;

  private final Exports exports = new Exports(0);
  private final ContractBackend disk =
      new ContractBackend(new BitmapBackend(new MemoryBackend(SIZE), "day"));

  @TempDir private Path directory;
  private Server server;
  private FutureTask<Void> serving;

  @BeforeEach
  void forgetLog() {
    Log.clear();
  }

  @AfterEach
  void stop() throws Exception {
    assertThat(server.stop(PATIENCE)).isTrue();
    serving.get(2, TimeUnit.MINUTES);
    assertThat(disk.violations()).isEmpty();
    assertThat(disk.openHandles()).isZero();
    assertThat(Log.at(Level.ERROR)).isEmpty();
  }

  private static Export export(String name, Backend backend) {
    return new Export(backend, List.of(name), new Export.Settings("", false));
  }

  /** Serves the exports on sockets of these names, each at the path of its number. */
  private void start(TlsPolicy tls, String... names) throws IOException {
    List<ListeningSocket> sockets = new ArrayList<>();
    for (String name : names) {
      ServerSocketChannel channel = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
      channel.bind(address(sockets.size()));
      sockets.add(new ListeningSocket(channel, Optional.of(name)));
    }
    server = new Server(sockets, exports, PATIENCE, Server.MINIMUM_MEMORY, tls);
    serving = new FutureTask<>(server::serve, null);
    Thread.ofPlatform().start(serving);
  }

  /** Serves two exports on the sockets "disk", which is one of them, "disk.socket" and "none". */
  private void start() throws IOException {
    exports.add(export("disk", disk));
    exports.add(export("", new NullBackend(OTHER_SIZE)));
    start(TlsPolicy.OFF, "disk", "disk.socket", "none");
  }

  private SocketAddress address(int socket) {
    return UnixDomainSocketAddress.of(directory.resolve("socket" + socket));
  }

  private RawClient connect(int socket) throws IOException {
    return RawClient.connect(address(socket));
  }

  private static List<String> listed(RawClient client) throws IOException {
    List<String> names = new ArrayList<>();
    client.option(RawClient.LIST);
    for (Reply reply = client.reply(RawClient.LIST);
        reply.type() != RawClient.ACK;
        reply = client.reply(RawClient.LIST)) {
      assertThat(reply.type()).isEqualTo(RawClient.SERVER);
      ByteBuffer data = ByteBuffer.wrap(reply.data());
      byte[] name = new byte[data.getInt()];
      data.get(name);
      names.add(new String(name, UTF_8));
    }
    return names;
  }

  private static String refusal(RawClient client, String name) throws IOException {
    client.option(RawClient.GO, RawClient.infoData(name));
    return client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
  }

  @ParameterizedTest
  @CsvSource({
    "'', ",
    "unknown, ",
    "connection, ",
    "nbd-multiconn@disk.socket, ",
    ".socket, ",
    "disk, disk",
    "socket, socket",
    "Unknown, Unknown",
    "' ', ' '"
  })
  void aNameIsAnExportUnlessSystemdGivesItByItself(String name, String export) throws IOException {
    start();
    try (ServerSocketChannel channel = ServerSocketChannel.open()) {
      ListeningSocket named = new ListeningSocket(channel, Optional.of(name));
      assertThat(named.onlyExport()).isEqualTo(Optional.ofNullable(export));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "disk"})
  void theExportHasItsNameAndTheEmptyOne(String name) throws IOException {
    start();
    try (RawClient old = connect(0);
        RawClient client = connect(0)) {
      old.hello(3).option(RawClient.EXPORT_NAME, name.getBytes(UTF_8));
      assertThat(ByteBuffer.wrap(old.take(10)).getLong()).isEqualTo(SIZE);
      client.hello(3).option(RawClient.OPT_INFO, RawClient.infoData(name, 1));
      assertThat(client.expectInfos(RawClient.OPT_INFO))
          .filteredOn(info -> RawClient.infoType(info) == 1)
          .singleElement()
          .satisfies(info -> assertThat(RawClient.text(info).substring(2)).isEqualTo("disk"));
      assertThat(client.go(name).size()).isEqualTo(SIZE);
      old.read(0, 1);
      client.read(0, 1);
      assertThat(server.connectionStates())
          .extracting(ConnectionState::export)
          .containsOnly(Optional.of("disk"));
      old.disconnect();
      client.disconnect();
    }
  }

  @ParameterizedTest
  @CsvSource({"'', disk", "disk, ''"})
  void bothNamesAreOneExportToAClient(String first, String second) throws IOException {
    start();
    try (RawClient client = connect(0).hello(3).agree(Replies.STRUCTURED)) {
      assertThat(client.selectContexts(first, "base:allocation", "qemu:dirty-bitmap:day"))
          .containsExactlyInAnyOrder("1 base:allocation", "2 qemu:dirty-bitmap:day");
      client.option(RawClient.OPT_INFO, RawClient.infoData(first)).expectInfos(RawClient.OPT_INFO);
      CheckedClient entered = CheckedClient.go(client, Replies.STRUCTURED, second, 1, 2);
      assertThat(entered.call(0, 0, RawClient.BLOCK_STATUS, 0, SIZE).extentsByContext().keySet())
          .containsExactlyInAnyOrder(1, 2);
      assertThat(disk.openedHandles()).isEqualTo(1);
      entered.disconnect();
    }
  }

  @Test
  void otherNamesAreUnknown() throws IOException {
    start();
    try (RawClient client = connect(0);
        RawClient old = connect(0)) {
      client.hello(3).agree(Replies.STRUCTURED);
      assertThat(refusal(client, "none")).contains("no export \"none\"");
      assertThat(refusal(client, "disk.socket")).contains("no export \"disk.socket\"");
      client.option(RawClient.OPT_INFO, RawClient.infoData("Disk"));
      client.expectError(RawClient.OPT_INFO, RawClient.ERR_UNKNOWN);
      for (int option : new int[] {RawClient.LIST_META_CONTEXT, RawClient.SET_META_CONTEXT}) {
        client.option(option, RawClient.contextData("disk2"));
        client.expectError(option, RawClient.ERR_UNKNOWN);
      }
      assertThat(listed(client)).containsExactly("disk");
      client.abort();
      old.hello(3).option(RawClient.EXPORT_NAME, "disk2".getBytes(UTF_8)).expectEnd();
    }
    assertThat(Log.at(Level.WARN)).anyMatch(line -> line.contains("\"none\" on this socket"));
  }

  @Test
  void socketsOfOtherNamesAreNotRestricted() throws IOException {
    start();
    try (RawClient first = connect(1).hello(3);
        RawClient second = connect(1).hello(3)) {
      assertThat(listed(first)).containsExactly("disk", "");
      assertThat(first.go("").size()).isEqualTo(OTHER_SIZE);
      assertThat(second.go("disk").size()).isEqualTo(SIZE);
      first.disconnect();
      second.disconnect();
    }
  }

  @Test
  void nothingIsFoundWhileTheExportIsNotThere() throws Exception {
    start();
    try (RawClient client = connect(2).hello(3)) {
      for (int round = 0; round < 3; round++) {
        assertThat(listed(client)).isEmpty();
        assertThat(refusal(client, "")).contains("no export \"none\"");
        assertThat(refusal(client, "none")).contains("no export \"none\"");
        Export added = export("none", new NullBackend(7 + round));
        exports.add(added);
        assertThat(listed(client)).containsExactly("none");
        try (RawClient served = connect(2)) {
          assertThat(served.enter("").size()).isEqualTo(7 + round);
          assertThat(exports.remove(List.of(added), PATIENCE)).isTrue();
          served.expectEnd();
        }
      }
      client.abort();
    }
  }

  /** A client that has asked about an export, which is replaced, does not get the old one. */
  @Test
  void anExportThatIsReplacedDuringAHandshakeEndsIt() throws Exception {
    Export first = export("none", new NullBackend(7));
    exports.add(first);
    start();
    try (RawClient client = connect(2).hello(3)) {
      client.option(RawClient.OPT_INFO, RawClient.infoData("")).expectInfos(RawClient.OPT_INFO);
      assertThat(exports.remove(List.of(first), PATIENCE)).isTrue();
      exports.add(export("none", new NullBackend(8)));
      client.expectEnd();
    }
    try (RawClient client = connect(2)) {
      assertThat(client.enter("").size()).isEqualTo(8);
      client.disconnect();
    }
  }

  @Test
  void storageThatNamesItsExportsIsRestrictedToo() throws IOException {
    Files.write(directory.resolve("a"), new byte[512]);
    Files.write(directory.resolve("b"), new byte[1024]);
    exports.add(
        new Export(
            DirectoryBackend.open(directory, FileSettings.DEFAULT),
            List.of(),
            new Export.Settings("", false)));
    start(TlsPolicy.OFF, "b", "late");
    try (RawClient client = connect(0).hello(3);
        RawClient late = connect(1).hello(3)) {
      assertThat(listed(client)).containsExactly("b");
      assertThat(refusal(client, "a")).contains("no export \"a\"");
      assertThat(client.go("").size()).isEqualTo(1024);
      client.disconnect();
      assertThat(listed(late)).isEmpty();
      assertThat(refusal(late, "")).contains("\"late\"");
      Files.write(directory.resolve("late"), new byte[1536]);
      assertThat(late.go("").size()).isEqualTo(1536);
      late.disconnect();
    }
    assertThat(exports.stillOpen()).hasSize(1);
    exports.stillOpen().getFirst().close();
  }

  private static ByteChannel tls(ByteChannel plain) throws IOException {
    return TlsClient.load(Optional.of(TestCertificates.GOOD), true).client(plain, "localhost");
  }

  @Test
  void theRestrictionHoldsInsideTls() throws Exception {
    exports.add(export("disk", disk));
    exports.add(export("other", new NullBackend(OTHER_SIZE)));
    TlsServer certificates = TlsServer.load(TestCertificates.GOOD, false);
    start(new TlsPolicy(Optional.of(certificates), true), "disk");
    try (RawClient client = connect(0).hello(3)) {
      client.option(RawClient.LIST);
      client.expectError(RawClient.LIST, RawClient.ERR_TLS_REQD);
      client.option(RawClient.GO, RawClient.infoData(""));
      client.expectError(RawClient.GO, RawClient.ERR_TLS_REQD);
      client.startTls(SocketNamesTest::tls);
      assertThat(listed(client)).containsExactly("disk");
      assertThat(refusal(client, "other")).contains("no export \"other\"");
      assertThat(client.go("").size()).isEqualTo(SIZE);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void theRestrictionOutlivesAPause(Outcome outcome) throws Exception {
    start();
    try (RawClient before = connect(0)) {
      before.enter("");
      before.write(0, (byte) 5);
      Eventually.isTrue("it is served", () -> server.connections() == 1);
      Server.Paused paused = server.pause(PATIENCE);
      assertThat(paused.clients())
          .extracting(each -> each.state().export())
          .containsExactly("disk");
      if (outcome == Outcome.RESUMED) {
        paused.resume();
      } else {
        Server next = next(paused);
        paused.leave();
        serving.get(2, TimeUnit.MINUTES);
        server = next;
        serving = new FutureTask<>(next::serve, null);
        Thread.ofPlatform().start(serving);
      }
      assertThat(before.read(0, 1)).containsExactly(5);
      try (RawClient client = connect(0).hello(3);
          RawClient free = connect(1).hello(3)) {
        assertThat(listed(client)).containsExactly("disk");
        assertThat(refusal(client, "none")).contains("no export \"none\"");
        assertThat(client.go("").size()).isEqualTo(SIZE);
        assertThat(free.go("").size()).isEqualTo(OTHER_SIZE);
        client.disconnect();
        free.disconnect();
      }
      before.disconnect();
    }
  }

  enum Outcome {
    RESUMED,
    TAKEN_OVER
  }

  private Server next(Server.Paused paused) throws IOException {
    List<ListeningSocket> sockets = new ArrayList<>();
    for (ListeningSocket.Kept each : paused.listeners()) {
      sockets.add(new ListeningSocket.Kept(each.socket().copy(), each.name()).again());
    }
    Server next = new Server(sockets, exports, PATIENCE, Server.MINIMUM_MEMORY, TlsPolicy.OFF);
    for (Server.Client client : paused.clients()) {
      next.adopt(client.state(), client.socket().copy());
    }
    return next;
  }

  @Test
  void socketsMayShareAName() throws IOException {
    exports.add(export("disk", disk));
    start(TlsPolicy.OFF, "disk", "disk");
    for (int i = 0; i < 50; i++) {
      try (RawClient client = connect(i % 2)) {
        assertThat(client.enter(i % 3 == 0 ? "disk" : "").size()).isEqualTo(SIZE);
        client.disconnect();
      }
    }
    assertThat(disk.openedHandles()).isEqualTo(50);
  }
}
