package nbd.server;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.Arrays;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnSettings;
import nbd.protocol.BlockSizes;
import nbd.storage.Capability;
import nbd.testing.Bytes;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Exports that are found by their names, listed, and opened or not. */
@Timeout(300)
final class ExportNamesTest {
  private static final String[] NAMES = {"disk", "", "naïve ☃"};
  private static final long SIZE = 123_456_789;

  @Test
  void everyNameIsServed() throws IOException {
    try (TestServer server = TestServer.with(new NullBackend(SIZE)).names(NAMES).start()) {
      for (String name : NAMES) {
        try (RawClient byName = server.connect();
            RawClient client = server.connect()) {
          byName.hello(3).option(RawClient.EXPORT_NAME, name.getBytes(UTF_8)).take(10);
          byName.disconnect();
          assertThat(client.enter(name).size()).isEqualTo(SIZE);
          client.disconnect();
        }
      }
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {4095, 4096})
  void theLongestNamesAreServed(int length) throws IOException {
    String name = "x".repeat(length);
    try (TestServer server = TestServer.with(new NullBackend(SIZE)).names(name).start();
        RawClient byName = server.connect();
        RawClient client = server.connect()) {
      byName.hello(3).option(RawClient.EXPORT_NAME, name.getBytes(UTF_8)).take(10);
      byName.disconnect();
      client.hello(3).option(RawClient.OPT_INFO, RawClient.infoData(name, 1));
      assertThat(client.expectInfos(RawClient.OPT_INFO)).hasSize(2);
      client.abort();
    }
  }

  @Test
  void allNamesAreListedWithTheDescription() throws IOException {
    try (TestServer server =
            TestServer.with(new NullBackend(SIZE)).names(NAMES).description("a disk").start();
        RawClient client = server.connect().hello(3)) {
      for (int i = 0; i < 2; i++) {
        client.option(RawClient.LIST);
        for (String name : NAMES) {
          RawClient.Reply reply = client.reply(RawClient.LIST);
          assertThat(reply.type()).isEqualTo(RawClient.SERVER);
          byte[] bytes = name.getBytes(UTF_8);
          assertThat(reply.data())
              .isEqualTo(Bytes.of().u32(bytes.length).raw(bytes).text("a disk").toArray());
        }
        client.expectAck(RawClient.LIST);
      }
      client.abort();
    }
  }

  @Test
  void anExportWithoutADescriptionIsDescribedByNothing() throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(SIZE));
        RawClient client = server.connect().hello(3)) {
      client.option(RawClient.OPT_INFO, RawClient.infoData("", 2));
      assertThat(client.expectInfos(RawClient.OPT_INFO)).hasSize(1);
    }
  }

  @Test
  void storageThatCannotBeOpenedIsSaidInASentenceOrByTheEnd() throws IOException {
    FakeBackend broken = new FakeBackend(1);
    try (TestServer server = TestServer.of(broken);
        RawClient byName = server.connect().hello(3);
        RawClient client = server.connect().hello(3)) {
      server.expectErrors();
      broken.failOpen();
      byName.option(RawClient.EXPORT_NAME).expectEnd();
      client.option(RawClient.GO, RawClient.infoData(""));
      assertThat(client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN))
          .contains("cannot be opened");
      client.abort();
    }
  }

  @Test
  void aClientThatCannotBeKeptConsistentIsToldWhy() throws IOException {
    FakeBackend flushless =
        new FakeBackend(
            4096,
            BlockSizes.DEFAULT,
            FakeBackend.all().without(Capability.FLUSH, Capability.MULTI_CONN));
    MultiConnFilter filter = new MultiConnFilter(flushless, MultiConnSettings.DEFAULT);
    try (TestServer server = TestServer.with(filter).maxConnections(2).start();
        RawClient client = server.connect().hello(3)) {
      client.option(RawClient.GO, RawClient.infoData(""));
      assertThat(client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN)).contains("flush");
      client.abort();
    }
  }

  @Test
  void requestsRightBehindGoAreAnswered() throws IOException {
    byte[] data = Bytes.random(3, 10_000);
    try (TestServer server = TestServer.of(new MemoryBackend(1 << 20));
        RawClient client = server.connect().greeting()) {
      client.send(
          Bytes.of()
              .u32(3)
              .raw(RawClient.optionBytes(RawClient.GO, RawClient.infoData("")))
              .raw(RawClient.requestBytes(0, RawClient.WRITE, 7, 100, data.length))
              .raw(data)
              .raw(RawClient.requestBytes(0, RawClient.READ, 8, 100, 3))
              .raw(RawClient.requestBytes(0, RawClient.DISC, 9, 0, 0))
              .toArray());
      client.expectInfos(RawClient.GO);
      client.expectReply(0, 7).expectReply(0, 8);
      assertThat(client.take(3)).isEqualTo(Arrays.copyOf(data, 3));
      client.expectEnd();
    }
  }
}
