package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import nbd.memory.MemoryBackend;
import nbd.server.TestServer;
import nbd.testing.Eventually;
import nbd.testing.Running;
import nbd.testing.ScriptedServer;
import nbd.testing.ScriptedServer.Asked;
import nbd.testing.ScriptedServer.Peer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** {@link Driver}, where a server ends or stops answering. */
@Timeout(300)
final class DriverTest {
  private static final int CONNECTIONS = 4;
  private static final int ANSWERED = 1000;
  private static final Duration LONG = Duration.ofHours(1);

  /** A server that answers only so many requests, and makes no connection afterwards. */
  private static final class FallingSilent extends WireServer {
    private final AtomicInteger requests = new AtomicInteger();

    @Override
    public void play(Peer client) throws IOException {
      if (!isSilent()) {
        super.play(client);
      }
    }

    @Override
    void answer(Peer client, Asked asked) throws IOException {
      if (requests.incrementAndGet() < ANSWERED) {
        super.answer(client, asked);
      }
    }

    boolean isSilent() {
      return requests.get() >= ANSWERED;
    }
  }

  /** The first connections, with one each for the description and the first contents. */
  private static final int BEFORE = 2 + CONNECTIONS;

  /** A server that ends one connection in the handshake: the first that a history makes again. */
  private static final class RefusingOnce extends WireServer {

    private final AtomicInteger connections = new AtomicInteger();

    @Override
    public void play(Peer client) throws IOException {
      if (connections.incrementAndGet() != BEFORE + 1) {
        super.play(client);
      }
    }

    boolean hasAcceptedMore() {
      return connections.get() > BEFORE + CONNECTIONS;
    }
  }

  private static Driver driver(String uri, Duration connecting, Duration silence)
      throws IOException {
    ClientSettings settings = new ClientSettings(connecting, silence);
    return new Driver(Target.open(NbdUri.parse(uri), settings), CONNECTIONS, 1);
  }

  private static String sentences(Driver driver) {
    return driver.findings().stream().map(Finding::sentence).collect(Collectors.joining("; "));
  }

  @Test
  void aServerThatStopsAnsweringIsAFinding() throws Exception {
    try (ScriptedServer server = ScriptedServer.always(new FallingSilent())) {
      Driver driver = driver(server.uri(), Duration.ofSeconds(4), Duration.ofSeconds(4));
      driver.drive(LONG);
      assertThat(sentences(driver))
          .contains("requests were not answered", "sent nothing for 4 s", "no new connection");
    }
  }

  @Test
  void aServerThatEndsIsAFinding() throws Exception {
    TestServer server = TestServer.of(new MemoryBackend(1 << 20));
    String socket = ((UnixDomainSocketAddress) server.address()).getPath().toString();
    Driver driver =
        driver("nbd+unix:///?socket=" + socket, Duration.ofSeconds(30), Duration.ofMinutes(1));
    Running drive = Running.start(() -> driver.drive(LONG));
    Eventually.isTrue("requests are made", () -> driver.counts().requests() > ANSWERED);
    assertThat(server.stop(Duration.ZERO)).isFalse();
    drive.join();
    server.awaitHandles(0);
    server.close();
    assertThat(sentences(driver)).contains("no new connection could be made later");
    assertThat(driver.violation()).isEmpty();
  }

  @Test
  void aConnectionThatIsRefusedOnceIsTriedAgain() throws Exception {
    RefusingOnce refusing = new RefusingOnce();
    try (ScriptedServer server = ScriptedServer.always(refusing)) {
      Driver driver = driver(server.uri(), Duration.ofSeconds(30), Duration.ofMinutes(1));
      Running drive = Running.start(() -> driver.drive(LONG));
      Eventually.isTrue(
          "connections are made again", () -> refusing.hasAcceptedMore() || drive.isDone());
      driver.stop();
      drive.join();
      assertThat(driver.findings()).isEmpty();
    }
  }
}
