package nbd.server;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import nbd.memory.NullBackend;
import nbd.testing.Bytes;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The option EXPORT_NAME, which has no error replies, and ABORT and LIST. */
@Timeout(60)
final class ExportNameTest {
  private static final long SIZE = 123_456_789;

  private static TestServer server() throws IOException {
    return TestServer.with(new NullBackend(SIZE)).names("disk", "", "naïve ☃").start();
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 2, 3})
  void theAnswerHas124ZeroesUnlessTheClientRefusedThem(int flags) throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(flags).option(RawClient.EXPORT_NAME, "disk".getBytes(UTF_8));
      ByteBuffer answer = ByteBuffer.wrap(client.take(10));
      assertThat(answer.getLong()).isEqualTo(SIZE);
      assertThat(answer.getShort() & 1).as("HAS_FLAGS").isEqualTo(1);
      if ((flags & 2) == 0) {
        assertThat(client.take(124)).containsOnly(0);
      }
      assertThat(client.read(SIZE - 5, 5)).hasSize(5);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "disk", "naïve ☃"})
  void everyNameIsServed(String name) throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.EXPORT_NAME, name.getBytes(UTF_8)).take(10);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"other", "DISK", "disk ", "../disk", "disk\0", "/"})
  void anUnknownNameIsDisconnected(String name) throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.EXPORT_NAME, name.getBytes(UTF_8)).expectEnd();
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {256, 257, 4095, 4096, 4097, 70_000})
  void aLongNameIsDisconnected(int length) throws IOException {
    byte[] name = new byte[length];
    Arrays.fill(name, (byte) 'x');
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).send(RawClient.optionBytes(RawClient.EXPORT_NAME, name)).expectEnd();
    }
  }

  @Test
  void aNameOf4096BytesIsServed() throws IOException {
    String longest = "x".repeat(4096);
    try (TestServer server = TestServer.with(new NullBackend(SIZE)).names(longest).start();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.EXPORT_NAME, longest.getBytes(UTF_8)).take(10);
      client.disconnect();
    }
  }

  @Test
  void aNameThatIsNotUtf8IsDisconnected() throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.EXPORT_NAME, (byte) 0xff, (byte) 0xfe).expectEnd();
    }
  }

  @Test
  void anEndlessNameIsDisconnectedBeforeItIsSent() throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).send(RawClient.optionHeader(RawClient.EXPORT_NAME, 0xffffffffL)).expectEnd();
    }
  }

  @Test
  void storageThatCannotBeOpenedEndsTheConnection() throws IOException {
    FakeBackend broken = new FakeBackend(1);
    try (TestServer server = TestServer.of(broken);
        RawClient client = server.connect()) {
      server.expectErrors();
      broken.failOpen();
      client.hello(3).option(RawClient.EXPORT_NAME).expectEnd();
    }
  }

  @Test
  void exportNameAfterAnInfoIsServed() throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.OPT_INFO, RawClient.infoData("disk"));
      client.expectInfos(RawClient.OPT_INFO);
      client.option(RawClient.EXPORT_NAME).take(10);
      client.disconnect();
    }
  }

  @Test
  void abortIsAcknowledged() throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
    }
  }

  @Test
  void abortWithDataIsAcknowledged() throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.ABORT, Bytes.random(1, 100_000));
      client.expectAck(RawClient.ABORT).expectEnd();
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aClientThatDoesNotWaitForItsAbortHarmsNothing(boolean tcp) throws IOException {
    try (TestServer server = TestServer.with(new NullBackend(SIZE)).tcp(tcp).start()) {
      for (int i = 0; i < 20; i++) {
        try (RawClient client = server.connect()) {
          client.hello(3).option(RawClient.ABORT).reset();
        }
      }
    }
  }

  @Test
  void allNamesAreListedWithTheDescription() throws IOException {
    try (TestServer server =
            TestServer.with(new NullBackend(SIZE))
                .names("disk", "", "naïve ☃")
                .description("a disk")
                .start();
        RawClient client = server.connect()) {
      client.hello(3);
      for (int i = 0; i < 2; i++) {
        client.option(RawClient.LIST);
        for (String name : new String[] {"disk", "", "naïve ☃"}) {
          RawClient.Reply reply = client.reply(RawClient.LIST);
          assertThat(reply.type()).isEqualTo(RawClient.SERVER);
          byte[] bytes = name.getBytes(UTF_8);
          assertThat(reply.data())
              .isEqualTo(Bytes.of().u32(bytes.length).raw(bytes).text("a disk").toArray());
        }
        client.expectAck(RawClient.LIST);
      }
      client.option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 4, 1000})
  void listWithDataIsInvalid(int length) throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.LIST, new byte[length]);
      client.expectError(RawClient.LIST, RawClient.ERR_INVALID);
      client.option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
    }
  }
}
