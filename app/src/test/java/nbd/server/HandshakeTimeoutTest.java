package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.time.Duration;
import nbd.memory.NullBackend;
import nbd.testing.Eventually;
import nbd.testing.Log;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.tinylog.Level;

/** Clients that do not finish the handshake: they cost little, disturb nobody, and are dropped. */
@Timeout(300)
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
  void aClientThatIsSlowOnPurposeIsDroppedAfterTheTimeout() throws Exception {
    try (TestServer impatient = impatient();
        RawClient client = impatient.connect()) {
      client.hello(3).send(RawClient.optionHeader(99, 32 << 20));
      assertThatThrownBy(
              () -> {
                for (int i = 0; i < 32 << 20; i++) {
                  client.send((byte) 0);
                }
              })
          .isInstanceOf(IOException.class);
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
    return TestServer.with(new NullBackend(SIZE)).handshakeTimeout(Duration.ofSeconds(3)).start();
  }
}
