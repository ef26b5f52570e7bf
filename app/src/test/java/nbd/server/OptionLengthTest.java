package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import nbd.memory.NullBackend;
import nbd.testing.Bytes;
import nbd.testing.RawClient;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Options that the server does not have, and options of every length: the next one still parses.
 */
@Timeout(60)
final class OptionLengthTest {
  /** The data of the longest INFO: a name of 4096 bytes and 65,535 requests. */
  private static final int LONGEST = 4 + 4096 + 2 + 2 * 65_535;

  private static final int DROPPED = 32 << 20;

  private TestServer server;
  private RawClient client;

  @BeforeEach
  void start() throws IOException {
    server = TestServer.of(new NullBackend(1 << 20));
    client = server.connect().hello(3);
  }

  @AfterEach
  void stop() throws IOException {
    client.close();
    server.close();
  }

  private void stillInStep() throws IOException {
    client.option(RawClient.GO, RawClient.infoData(""));
    RawClient.export(client.expectInfos(RawClient.GO));
    client.disconnect();
  }

  /** Also PEEK_EXPORT, which was withdrawn. */
  @ParameterizedTest
  @ValueSource(ints = {0, 4, 12, 255, 0x10007, 0x7fffffff, 0x80000001, -1})
  void anOptionThatIsNotSupportedIsSaidToBeAndTheNextParses(int option) throws IOException {
    for (byte[] data : new byte[][] {{}, {1}, Bytes.random(option, 28), new byte[5000]}) {
      client.option(option, data).expectError(option, RawClient.ERR_UNSUP);
    }
    stillInStep();
  }

  @Test
  void anOptionInsideTheDataOfAnotherIsData() throws IOException {
    byte[] inner = RawClient.optionBytes(RawClient.ABORT);
    client.option(99, inner).expectError(99, RawClient.ERR_UNSUP);
    for (int option : new int[] {8, 9, 10, 11}) {
      client.option(option, inner).expectError(option, RawClient.ERR_INVALID);
    }
    stillInStep();
  }

  @Test
  void manyUnknownOptionsAreAllAnswered() throws IOException {
    for (int option = 100; option < 3100; option++) {
      client.option(option).expectError(option, RawClient.ERR_UNSUP);
    }
    stillInStep();
  }

  @ParameterizedTest
  @ValueSource(ints = {RawClient.GO, RawClient.OPT_INFO, 8, 99})
  void dataUpToTheLongestQuestionIsLookedAt(int option) throws IOException {
    int expected = option == 99 ? RawClient.ERR_UNSUP : RawClient.ERR_INVALID;
    for (int length : new int[] {LONGEST - 1, LONGEST}) {
      client.option(option, new byte[length]).expectError(option, expected);
    }
    stillInStep();
  }

  @ParameterizedTest
  @ValueSource(ints = {RawClient.LIST, RawClient.OPT_INFO, RawClient.GO, 8, 10, 99})
  void longerDataIsDroppedAndSaidToBeTooBig(int option) throws IOException {
    client.option(option, new byte[LONGEST + 1]).expectError(option, RawClient.ERR_TOO_BIG);
    stillInStep();
  }

  @Test
  void theLongestDataThatIsReadIsDroppedAndTheNextOptionParses() throws IOException {
    client.option(99, new byte[DROPPED]).expectError(99, RawClient.ERR_TOO_BIG);
    stillInStep();
  }

  @ParameterizedTest
  @ValueSource(longs = {DROPPED + 1L, 0x7fffffffL, 0x80000000L, 0xffffffffL})
  void endlessDataEndsTheConnectionBeforeItIsSent(long length) throws IOException {
    for (int option : new int[] {RawClient.LIST, RawClient.GO, 10, 99}) {
      try (RawClient other = server.connect()) {
        other.hello(3).send(RawClient.optionHeader(option, length)).expectEnd();
      }
    }
    stillInStep();
  }

  @Test
  void anAbortWithEndlessDataIsNoTrouble() throws IOException {
    try (RawClient other = server.connect()) {
      other.hello(3).send(RawClient.optionHeader(RawClient.ABORT, 0xffffffffL)).halfClose();
      other.expectEnd();
    }
    stillInStep();
  }

  @Test
  void optionsSentTogetherAreAnsweredInOrder() throws IOException {
    Bytes all = Bytes.of();
    for (int option = 100; option < 150; option++) {
      all.raw(RawClient.optionBytes(option, new byte[option]));
    }
    client.send(all.toArray());
    for (int option = 100; option < 150; option++) {
      assertThat(client.expectError(option, RawClient.ERR_UNSUP)).contains("" + option);
    }
    stillInStep();
  }
}
