package nbd.server;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.Arrays;
import java.util.List;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnSettings;
import nbd.protocol.BlockSizes;
import nbd.storage.Capability;
import nbd.testing.Bytes;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import nbd.testing.RawClient.Export;
import nbd.testing.RawClient.Reply;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The options INFO and GO: what is told of an export, and what is wrong with a question. */
@Timeout(60)
final class InfoAndGoTest {
  private static final long SIZE = 1 << 20;

  private static TestServer server() throws IOException {
    return TestServer.with(new MemoryBackend(SIZE))
        .names("disk", "other", "x".repeat(4095), "x".repeat(4096))
        .description("a disk")
        .start();
  }

  private static void stillInStep(RawClient client) throws IOException {
    client.option(RawClient.OPT_INFO, RawClient.infoData("disk"));
    assertThat(RawClient.export(client.expectInfos(RawClient.OPT_INFO)).size()).isEqualTo(SIZE);
    client.option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
  }

  @Test
  void withoutARequestOnlyTheExportIsDescribed() throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.GO, RawClient.infoData("disk"));
      List<Reply> infos = client.expectInfos(RawClient.GO);
      assertThat(infos).hasSize(1);
      assertThat(RawClient.export(infos).size()).isEqualTo(SIZE);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {RawClient.OPT_INFO, RawClient.GO})
  void everythingThatIsAskedForIsToldOnce(int option) throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      int[] questions = {3, 1, 0, 2, 1, 3, 2, 0, 4, 17, 0xffff, 3};
      client.hello(3).option(option, RawClient.infoData("disk", questions));
      List<Reply> infos = client.expectInfos(option);
      assertThat(infos.stream().map(RawClient::infoType)).containsExactlyInAnyOrder(0, 1, 2, 3);
      for (Reply info : infos) {
        byte[] expected =
            switch (RawClient.infoType(info)) {
              case 1 -> Bytes.of().u16(1).text("disk").toArray();
              case 2 -> Bytes.of().u16(2).text("a disk").toArray();
              case 3 -> Bytes.of().u16(3).u32(1).u32(4096).u32(32 << 20).toArray();
              default -> info.data();
            };
        assertThat(info.data()).isEqualTo(expected);
      }
      RawClient.export(infos);
    }
  }

  @Test
  void anExportWithoutADescriptionIsDescribedByNothing() throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(SIZE));
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.OPT_INFO, RawClient.infoData("", 2));
      assertThat(client.expectInfos(RawClient.OPT_INFO)).hasSize(1);
    }
  }

  @Test
  void allRequestsThatCanBeCountedAreIgnoredWhereUnknown() throws IOException {
    int[] unknown = new int[65_535];
    Arrays.setAll(unknown, i -> 4 + i % 65_000);
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.OPT_INFO, RawClient.infoData("disk", unknown));
      assertThat(client.expectInfos(RawClient.OPT_INFO)).hasSize(1);
      stillInStep(client);
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aClientThatIsGoneWhileManyRequestsAreAnsweredHarmsNothing(boolean tcp) throws IOException {
    int[] requests = new int[65_535];
    Arrays.setAll(requests, i -> i % 4);
    byte[] go = RawClient.infoData("", requests);
    try (TestServer server = TestServer.with(new NullBackend(SIZE)).tcp(tcp).start()) {
      for (int i = 0; i < 5; i++) {
        try (RawClient client = server.connect()) {
          client.hello(3).option(RawClient.GO, go).reset();
        }
      }
    }
  }

  @Test
  void anUnknownNameIsRefusedWithASentenceAndTheNextIsServed() throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3);
      for (int option : new int[] {RawClient.OPT_INFO, RawClient.GO}) {
        client.option(option, RawClient.infoData("nobody"));
        assertThat(client.expectError(option, RawClient.ERR_UNKNOWN)).contains("\"nobody\"");
      }
      client.option(RawClient.GO, RawClient.infoData("disk"));
      client.expectInfos(RawClient.GO);
      client.disconnect();
    }
  }

  @Test
  void anErrorDoesNotRepeatWhatCouldHarmATerminal() throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.GO, RawClient.infoData("\u001b[2J\n" + "y".repeat(4000)));
      String sentence = client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
      assertThat(sentence).doesNotContain("\u001b", "\n").hasSizeLessThan(300);
      stillInStep(client);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 255, 256, 257, 4094})
  void anUnknownNameOfAnyLengthIsUnknown(int length) throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.GO, RawClient.infoData("x".repeat(length)));
      client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
      stillInStep(client);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {4095, 4096})
  void theLongestNamesAreServed(int length) throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.OPT_INFO, RawClient.infoData("x".repeat(length), 1));
      assertThat(client.expectInfos(RawClient.OPT_INFO)).hasSize(2);
      stillInStep(client);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {4097, 5000, 100_000})
  void aNameThatIsTooLongIsInvalid(int length) throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.GO, RawClient.infoData("x".repeat(length)));
      client.expectError(RawClient.GO, RawClient.ERR_INVALID);
      stillInStep(client);
    }
  }

  @Test
  void malformedQuestionsAreInvalid() throws IOException {
    byte[][] malformed = {
      {},
      {0},
      Bytes.of().u32(0).toArray(),
      Bytes.of().u32(0).raw((byte) 0).toArray(),
      Bytes.of().u32(4).text("disk").toArray(),
      Bytes.of().u32(3).text("disk").u16(0).toArray(),
      Bytes.of().u32(5).text("disk").u16(0).toArray(),
      Bytes.of().u32(6).text("disk").u16(0).toArray(),
      Bytes.of().u32(0xffffffffL).text("disk").u16(0).toArray(),
      Bytes.of().u32(0x80000000L).text("disk").u16(0).toArray(),
      Bytes.of().u32(4).text("disk").u16(1).toArray(),
      Bytes.of().u32(4).text("disk").u16(0).u16(0).toArray(),
      Bytes.of().u32(4).text("disk").u16(2).u16(0).toArray(),
      Bytes.of().u32(4).text("disk").u16(1).u16(0).raw((byte) 0).toArray(),
      Bytes.of().u32(4).text("disk").u16(0xffff).toArray(),
      Bytes.of().u32(5).text("disk\0").u16(0).toArray(),
      Bytes.of().u32(1).text("\0").u16(0).toArray(),
      Bytes.of().u32(2).raw((byte) 0xc3, (byte) 0x28).u16(0).toArray(),
      Bytes.of().u32(3).raw((byte) 0xed, (byte) 0xa0, (byte) 0x80).u16(0).toArray(),
    };
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3);
      for (byte[] data : malformed) {
        for (int option : new int[] {RawClient.OPT_INFO, RawClient.GO}) {
          client.option(option, data).expectError(option, RawClient.ERR_INVALID);
        }
      }
      stillInStep(client);
    }
  }

  @Test
  void goAfterInfoIsAnsweredTheSameFromTheSameHandle() throws Exception {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      int before = server.contract().openedHandles();
      client.hello(3).option(RawClient.OPT_INFO, RawClient.infoData("disk"));
      Export told = RawClient.export(client.expectInfos(RawClient.OPT_INFO));
      client.option(RawClient.GO, RawClient.infoData("disk"));
      assertThat(RawClient.export(client.expectInfos(RawClient.GO))).isEqualTo(told);
      assertThat(server.contract().openedHandles()).isEqualTo(before + 1);
      client.disconnect();
      server.awaitHandles(1);
    }
  }

  @Test
  void goOfAnotherNameThanInfoClosesTheFirstHandle() throws Exception {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.hello(3);
      for (String name : new String[] {"disk", "other", "disk"}) {
        client.option(RawClient.OPT_INFO, RawClient.infoData(name));
        client.expectInfos(RawClient.OPT_INFO);
        assertThat(server.contract().openHandles()).isEqualTo(2);
      }
      client.option(RawClient.GO, RawClient.infoData("other", 1));
      List<Reply> infos = client.expectInfos(RawClient.GO);
      assertThat(new String(infos.get(1).data(), 2, 5, UTF_8)).isEqualTo("other");
      assertThat(server.contract().openHandles()).isEqualTo(2);
      client.disconnect();
      server.awaitHandles(1);
    }
  }

  @Test
  void anExportThatWasOnlyLookedAtIsClosedWhenTheClientLeaves() throws Exception {
    try (TestServer server = server()) {
      for (String last : new String[] {"abort", "leave"}) {
        try (RawClient client = server.connect()) {
          client.hello(3).option(RawClient.OPT_INFO, RawClient.infoData("disk"));
          client.expectInfos(RawClient.OPT_INFO);
          if (last.equals("abort")) {
            client.option(RawClient.ABORT).expectAck(RawClient.ABORT);
          }
        }
        server.awaitHandles(1);
      }
    }
  }

  @Test
  void storageThatCannotBeOpenedIsSaidInASentence() throws IOException {
    FakeBackend broken = new FakeBackend(1);
    try (TestServer server = TestServer.of(broken);
        RawClient client = server.connect()) {
      broken.failOpen();
      client.hello(3).option(RawClient.GO, RawClient.infoData(""));
      assertThat(client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN))
          .contains("cannot be opened");
      client.option(RawClient.LIST).reply(RawClient.LIST);
      client.expectAck(RawClient.LIST);
    }
  }

  @Test
  void aClientThatCannotBeKeptConsistentIsToldWhy() throws IOException {
    FakeBackend flushless =
        new FakeBackend(
            4096,
            BlockSizes.DEFAULT,
            FakeBackend.all().without(Capability.FLUSH).without(Capability.MULTI_CONN));
    MultiConnSettings settings = MultiConnSettings.DEFAULT;
    try (TestServer server =
            TestServer.with(new MultiConnFilter(flushless, settings)).maxConnections(2).start();
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.GO, RawClient.infoData(""));
      assertThat(client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN)).contains("flush");
      client.option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
    }
  }

  @Test
  void aRequestRightBehindGoIsAnswered() throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      byte[] go = RawClient.optionBytes(RawClient.GO, RawClient.infoData("disk"));
      byte[] data = Bytes.random(3, 10_000);
      client.greeting();
      client.send(
          Bytes.of()
              .u32(3)
              .raw(go)
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

  @Test
  void anOptionAfterGoIsARequestWithoutMagic() throws IOException {
    try (TestServer server = server();
        RawClient client = server.connect()) {
      client.enter("disk");
      client.option(RawClient.LIST, new byte[12]).expectEnd();
    }
  }
}
