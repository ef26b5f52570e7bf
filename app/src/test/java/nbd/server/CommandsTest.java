package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.FakeBackend;
import nbd.testing.FakeBackend.Call;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** The effect of each command, for one client that keeps to the protocol. */
@Timeout(300)
final class CommandsTest {
  private static final long FOUR_GIB = (1L << 32) - 4096;

  static Stream<Arguments> transportsAndReplies() {
    return Stream.of(Replies.values())
        .flatMap(replies -> Stream.of(Arguments.of(false, replies), Arguments.of(true, replies)));
  }

  /** The client's buffers are small: the server's replies are taken in parts. */
  @ParameterizedTest
  @MethodSource("transportsAndReplies")
  void whatIsWrittenIsRead(boolean tcp, Replies replies) throws IOException {
    long seed = 41;
    Random random = new Random(seed);
    byte[] model = new byte[4 << 20];
    try (TestServer server = TestServer.with(new MemoryBackend(model.length)).tcp(tcp).start();
        RawClient narrow = RawClient.connectNarrow(server.address());
        CheckedClient client = CheckedClient.enter(narrow, replies, "")) {
      for (int i = 0; i < 300; i++) {
        int length = 1 + random.nextInt(random.nextBoolean() ? 300 : 300_000);
        int offset = random.nextInt(model.length - length + 1);
        switch (random.nextInt(5)) {
          case 0 -> {
            byte[] data = Bytes.random(i, length);
            System.arraycopy(data, 0, model, offset, length);
            client.write(offset, data);
          }
          case 1 -> {
            Arrays.fill(model, offset, offset + length, (byte) 0);
            client.call(0, random.nextInt(4), RawClient.WRITE_ZEROES, offset, length);
          }
          case 2 -> {
            client.call(0, 0, RawClient.CACHE, offset, length);
            client.flush();
          }
          default -> {
            boolean df = replies != Replies.SIMPLE && random.nextBoolean();
            int flags = df ? RawClient.DF : 0;
            byte[] data = client.call(0, flags, RawClient.READ, offset, length).data();
            assertThat(CheckedClient.isRange(data, model, offset)).as("seed %d", seed).isTrue();
          }
        }
      }
      assertThat(Arrays.equals(client.read(0, model.length), model)).isTrue();
      client.disconnect();
    }
  }

  @Test
  void trimAndZeroesOfNearlyFourGibibytesAreServed() throws IOException {
    for (var backend : List.of(new MemoryBackend(8L << 30), new NullBackend(8L << 30))) {
      try (TestServer server = TestServer.of(backend);
          RawClient client = server.client()) {
        byte[] data = Bytes.random(6, 4096);
        long last = (4L << 30) + FOUR_GIB;
        client.write(4L << 30, data).write(last - 4096, data).write(last, data);
        client.call(0, 0, RawClient.WRITE_ZEROES, 4L << 30, FOUR_GIB);
        assertThat(client.read(4L << 30, 4096)).containsOnly(0);
        assertThat(client.read(last - 4096, 4096)).containsOnly(0);
        if (backend instanceof MemoryBackend) {
          assertThat(client.read(last, 4096)).isEqualTo(data);
        }
        client.call(0, RawClient.FUA, RawClient.TRIM, 1, 0xffffffffL);
        client.call(0, 0, RawClient.CACHE, 0, 0xffffffffL);
        client.disconnect();
      }
    }
  }

  @Test
  void everyCommandReachesTheStorageAsItWasSent() throws IOException {
    FakeBackend fake = new FakeBackend(1 << 20);
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      CommandFlags fua = CommandFlags.of(CommandFlag.FUA);
      client.call(0, RawClient.FUA, RawClient.WRITE, 10, 3, new byte[3]);
      client.call(0, RawClient.FUA, RawClient.TRIM, 20, 5);
      client.call(0, RawClient.FUA, RawClient.WRITE_ZEROES, 30, 7);
      client.call(0, RawClient.NO_HOLE, RawClient.WRITE_ZEROES, 40, 9);
      client.call(0, 0x10, RawClient.WRITE_ZEROES, 50, 11);
      client.call(0, RawClient.FUA, RawClient.READ, 60, 2).take(2);
      client.call(0, RawClient.FUA, RawClient.FLUSH, 0, 0);
      client.call(0, RawClient.FUA, RawClient.CACHE, 70, 13);
      assertThat(fake.calls())
          .containsExactly(
              new Call(Command.WRITE, 10, 3, fua),
              new Call(Command.TRIM, 20, 5, fua),
              new Call(Command.WRITE_ZEROES, 30, 7, fua),
              new Call(Command.WRITE_ZEROES, 40, 9, CommandFlags.of(CommandFlag.NO_HOLE)),
              new Call(Command.WRITE_ZEROES, 50, 11, CommandFlags.of(CommandFlag.FAST_ZERO)),
              Call.of(Command.READ, 60, 2),
              Call.of(Command.FLUSH, 0, 0),
              Call.of(Command.CACHE, 70, 13));
      client.disconnect();
    }
  }

  @Test
  void theFlagsSayWhatTheStorageCan() throws IOException {
    Map<Capabilities, Integer> expected = new HashMap<>();
    expected.put(FakeBackend.all(), 0b1101_0111_1101);
    expected.put(Capabilities.of(), 0b11);
    expected.put(Capabilities.of(Capability.WRITE), 0b1);
    expected.put(Capabilities.of(Capability.WRITE, Capability.FLUSH), 0b1101);
    expected.put(Capabilities.of(Capability.FUA, Capability.WRITE), 0b1001);
    expected.put(Capabilities.of(Capability.TRIM, Capability.ZERO), 0b11);
    expected.put(Capabilities.of(Capability.WRITE, Capability.FAST_ZERO), 0b1);
    expected.put(Capabilities.of(Capability.WRITE, Capability.TRIM), 0b10_0001);
    expected.put(Capabilities.of(Capability.WRITE, Capability.ZERO), 0b100_0001);
    expected.put(Capabilities.of(Capability.CACHE), 0b100_0000_0011);
    expected.put(Capabilities.of(Capability.MULTI_CONN), 0b1_0000_0011);
    expected.put(Capabilities.of(Capability.ROTATIONAL), 0b1_0011);
    for (Map.Entry<Capabilities, Integer> entry : expected.entrySet()) {
      FakeBackend fake = new FakeBackend(4096, BlockSizes.DEFAULT, entry.getKey());
      try (TestServer server = TestServer.of(fake);
          RawClient client = server.connect()) {
        int flags = client.enter("").flags();
        assertThat(Integer.toBinaryString(flags))
            .as("%s", entry.getKey())
            .isEqualTo(Integer.toBinaryString(entry.getValue()));
      }
    }
  }

  @Test
  void anEmptyExportIsServed() throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(0));
        RawClient client = server.connect()) {
      assertThat(client.enter("").size()).isZero();
      client.call(0, 0, RawClient.READ, 0, 0).call(RawClient.EINVAL, 0, RawClient.READ, 0, 1);
      client.call(RawClient.ENOSPC, 0, RawClient.WRITE, 0, 1, new byte[1]).flush().disconnect();
    }
  }
}
