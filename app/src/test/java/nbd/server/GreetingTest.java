package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import nbd.memory.NullBackend;
import nbd.testing.Bytes;
import nbd.testing.Log;
import nbd.testing.Pace;
import nbd.testing.RawClient;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.tinylog.Level;

/** The first bytes of both sides, and clients that send something else there. */
@Timeout(60)
final class GreetingTest {
  private static final long SIZE = 1 << 20;

  private TestServer server;

  @BeforeEach
  void start() throws IOException {
    server = TestServer.of(new NullBackend(SIZE));
  }

  @AfterEach
  void stop() throws IOException {
    server.close();
  }

  @Test
  void theServerSpeaksFirst() throws IOException {
    try (RawClient client = server.connect()) {
      client.greeting();
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {4, 8, 0x10000, 0x80000000, 7, -1})
  void clientFlagsThatAreUnknownEndTheConnection(int flags) throws Exception {
    try (RawClient client = server.connect()) {
      Log.clear();
      client.hello(flags).expectEnd();
    }
    oneLogLine("client flags");
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 2})
  void withoutFixedNewstyleOnlyExportNameIsAnswered(int flags) throws IOException {
    for (int option : new int[] {2, 3, 5, 6, 7, 8, 99}) {
      try (RawClient client = server.connect()) {
        client.hello(flags).option(option).expectEnd();
      }
    }
    try (RawClient client = server.connect()) {
      client.hello(flags).option(RawClient.EXPORT_NAME).take(flags == 0 ? 134 : 10);
      client.read(0, 10);
      client.disconnect();
    }
  }

  @Test
  void garbageInsteadOfAnOptionIsDroppedWithOneLogLine() throws IOException {
    try (RawClient client = server.connect()) {
      Log.clear();
      client
          .hello(3)
          .send(
              "GET / HTTP/1.1\r\nHost: nbd\r\n\r\n"
                  .getBytes(java.nio.charset.StandardCharsets.UTF_8));
      client.expectEnd();
    }
    oneLogLine("magic");
  }

  @Test
  void garbageInsteadOfFlagsIsDroppedWithOneLogLine() throws IOException {
    try (RawClient client = server.connect()) {
      Log.clear();
      client.greeting().send(Bytes.random(1, 4096)).expectEnd();
    }
    oneLogLine("client flags");
  }

  @Test
  void garbageInsteadOfARequestIsDroppedWithOneLogLine() throws IOException {
    try (RawClient client = server.client()) {
      Log.clear();
      client.send(Bytes.random(2, 28)).expectEnd();
    }
    oneLogLine("magic");
  }

  @ParameterizedTest
  @ValueSource(ints = {0x25609514, 0x21e41c71, 0x67446698, 0x668e33ef, 0})
  void aRequestOfAnotherKindEndsTheConnection(int magic) throws IOException {
    try (RawClient client = server.client()) {
      byte[] request = RawClient.requestBytes(0, RawClient.READ, 1, 0, 512);
      byte[] other = Bytes.of().u32(magic).toArray();
      System.arraycopy(other, 0, request, 0, 4);
      client.send(request).expectEnd();
    }
  }

  @Test
  void aClientThatOnlyLooksIsNoEventForTheLog() throws Exception {
    Log.clear();
    try (RawClient client = server.connect()) {
      client.greeting();
    }
    server.connect().close();
    server.awaitHandles(1);
    server.close();
    assertThat(Log.at(Level.INFO)).isEmpty();
  }

  @Test
  void aHandshakeThatArrivesByteByByteIsUnderstood() throws IOException {
    try (RawClient client = server.connect()) {
      client.pace(Pace.BYTE_BY_BYTE).enter("");
      client.read(5, 100);
      client.disconnect();
    }
  }

  @Test
  void aHandshakeThatArrivesInRandomPiecesIsUnderstood() throws IOException {
    for (int seed = 0; seed < 20; seed++) {
      try (RawClient client = server.connect()) {
        client.pace(Pace.random(seed)).hello(3);
        client.option(RawClient.LIST);
        client.reply(RawClient.LIST);
        client.expectAck(RawClient.LIST);
        client.option(RawClient.GO, RawClient.infoData("", 0, 1, 2, 3));
        assertThat(RawClient.export(client.expectInfos(RawClient.GO)).size()).isEqualTo(SIZE);
        client.write(3, Bytes.random(seed, 5000)).disconnect();
      }
    }
  }

  /** What is logged comes after the connection has ended: look when the server is gone. */
  private void oneLogLine(String word) throws IOException {
    server.close();
    assertThat(Log.at(Level.INFO)).hasSize(1).first().asString().contains(word);
  }
}
