package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.Log;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.tinylog.Level;

/** Clients that do not finish the handshake: they cost little, disturb nobody, and are dropped. */
@Timeout(60)
final class HandshakeTimeoutTest {
  private static final long SIZE = 1 << 20;

  @Test
  void aSilentClientIsDroppedAfterTheTimeout() throws Exception {
    try (TestServer impatient = impatient();
        RawClient silent = impatient.connect();
        RawClient greeted = impatient.connect();
        RawClient inOptions = impatient.connect();
        RawClient inTheMiddle = impatient.connect()) {
      greeted.greeting();
      inOptions.hello(3).option(RawClient.LIST);
      inOptions.reply(RawClient.LIST);
      inOptions.expectAck(RawClient.LIST);
      inTheMiddle.hello(3).send(RawClient.optionHeader(RawClient.GO, 100));
      silent.greeting().expectEnd();
      greeted.expectEnd();
      inOptions.expectEnd();
      inTheMiddle.expectEnd();
      // A client sees its end before the server has said so.
      Eventually.isTrue("each is logged", () -> Log.at(Level.WARN).size() >= 4);
      assertThat(Log.at(Level.WARN))
          .hasSize(4)
          .allSatisfy(line -> assertThat(line).contains("no export"));
    }
  }

  @Test
  @SuppressWarnings("ThreadSleep")
  void aClientThatIsSlowOnPurposeIsDroppedAfterTheTimeout() throws Exception {
    try (TestServer impatient = impatient();
        RawClient client = impatient.connect()) {
      client.hello(3);
      byte[] endless = RawClient.optionBytes(RawClient.LIST);
      boolean dropped = false;
      for (int i = 0; !dropped && i < 10_000; i++) {
        try {
          client.send(endless[i % endless.length]);
          Thread.sleep(5);
        } catch (IOException gone) {
          dropped = true;
        }
      }
      assertThat(dropped).isTrue();
    }
  }

  @Test
  void theTimeoutIsNotForClientsThatHaveChosen() throws Exception {
    try (TestServer impatient = impatient();
        RawClient client = impatient.client();
        RawClient silent = impatient.connect()) {
      // When a client that came later has timed out, this one's time is over, too.
      silent.greeting().expectEnd();
      client.read(0, 512);
      client.disconnect();
    }
  }

  private static TestServer impatient() throws IOException {
    return TestServer.with(new NullBackend(SIZE)).handshakeTimeout(Duration.ofMillis(300)).start();
  }

  @Test
  void aThousandHandshakesLeftHangingDisturbNobodyAndTheServerStops() throws Exception {
    int size = 8 << 20;
    byte[] image = Bytes.random(4, size);
    try (TestServer server = TestServer.of(new MemoryBackend(size))) {
      List<RawClient> hanging = new ArrayList<>();
      try (RawClient client = server.client()) {
        for (int i = 0; i < 1000; i++) {
          RawClient one = server.connect();
          hanging.add(one);
          switch (i % 4) {
            case 0 -> {}
            case 1 -> one.greeting();
            case 2 -> one.hello(3);
            default -> one.hello(3).send(RawClient.optionHeader(RawClient.GO, 1000));
          }
          int piece = size / 1000;
          client.write(
              (long) i * piece, java.util.Arrays.copyOfRange(image, i * piece, (i + 1) * piece));
        }
        assertThat(client.read(0, size / 1000 * 1000))
            .isEqualTo(java.util.Arrays.copyOf(image, size / 1000 * 1000));
        client.disconnect();
        server.witness().disconnect();
        assertThat(server.stop(Duration.ofSeconds(20))).as("none had to be cut").isTrue();
        for (RawClient one : hanging.subList(1, 2)) {
          one.expectEnd();
        }
      } finally {
        for (RawClient one : hanging) {
          one.close();
        }
      }
    }
  }
}
