package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.testing.Bytes;
import nbd.testing.FakeBackend;
import nbd.testing.FakeBackend.Call;
import nbd.testing.Pace;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What each command does, for one client that behaves. */
@Timeout(60)
final class CommandsTest {
  private static final int MAXIMUM = 32 << 20;
  private static final long FOUR_GIB = (1L << 32) - 4096;

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void whatIsWrittenIsRead(boolean tcp) throws IOException {
    int size = 1 << 20;
    byte[] model = new byte[size];
    Random random = new Random(11);
    try (TestServer server = TestServer.with(new MemoryBackend(size)).tcp(tcp).start();
        RawClient client = RawClient.connectNarrow(server.address())) {
      client.enter("");
      for (int i = 0; i < 200; i++) {
        int length = 1 + random.nextInt(random.nextBoolean() ? 200 : 100_000);
        int offset = random.nextInt(size - length + 1);
        switch (random.nextInt(4)) {
          case 0 -> {
            byte[] data = Bytes.random(i, length);
            System.arraycopy(data, 0, model, offset, length);
            client.write(offset, data);
          }
          case 1 -> {
            Arrays.fill(model, offset, offset + length, (byte) 0);
            client.call(0, random.nextInt(4), RawClient.WRITE_ZEROES, offset, length);
          }
          case 2 -> client.call(0, 0, RawClient.CACHE, offset, length).flush();
          default ->
              assertThat(client.read(offset, length))
                  .isEqualTo(Arrays.copyOfRange(model, offset, offset + length));
        }
      }
      assertThat(client.read(0, size)).isEqualTo(model);
      client.disconnect();
    }
  }

  @Test
  void requestsThatArriveInRandomPiecesAreUnderstood() throws IOException {
    try (TestServer server = TestServer.of(new MemoryBackend(1 << 20));
        RawClient client = server.client()) {
      for (int seed = 0; seed < 10; seed++) {
        byte[] data = Bytes.random(seed, 3000);
        client.pace(seed == 0 ? Pace.BYTE_BY_BYTE : Pace.random(seed)).write(seed, data);
        assertThat(client.read(seed, data.length)).isEqualTo(data);
      }
      client.disconnect();
    }
  }

  @Test
  void theLongestReadAndWriteAreServed() throws IOException {
    byte[] data = Bytes.random(5, MAXIMUM);
    try (TestServer server = TestServer.of(new MemoryBackend(MAXIMUM + 4096L));
        RawClient client = server.client()) {
      client.write(1234, data);
      assertThat(client.read(1234, MAXIMUM)).isEqualTo(data);
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
  void fuaWhereTheStorageHasNoneIsTheCommandAndThenAFlush() throws IOException {
    FakeBackend fake =
        new FakeBackend(4096, BlockSizes.DEFAULT, FakeBackend.all().without(Capability.FUA));
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client()) {
      client.call(0, RawClient.FUA, RawClient.WRITE, 1, 2, new byte[2]);
      client.call(0, RawClient.FUA, RawClient.TRIM, 3, 4);
      client.call(0, RawClient.FUA, RawClient.WRITE_ZEROES, 5, 6);
      client.call(0, RawClient.FUA, RawClient.READ, 7, 1).take(1);
      Call flush = Call.of(Command.FLUSH, 0, 0);
      assertThat(fake.calls())
          .containsExactly(
              Call.of(Command.WRITE, 1, 2),
              flush,
              Call.of(Command.TRIM, 3, 4),
              flush,
              Call.of(Command.WRITE_ZEROES, 5, 6),
              flush,
              Call.of(Command.READ, 7, 1));
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
  void thousandsOfRequestsInFlightAreAnsweredOnceEach() throws Exception {
    int count = 5000;
    byte[] image = Bytes.random(7, 1 << 20);
    try (TestServer server = TestServer.of(new MemoryBackend(1 << 20));
        RawClient client = server.client()) {
      client.write(0, image);
      CompletableFuture<Void> sending =
          CompletableFuture.runAsync(
              () -> {
                try {
                  for (int i = 0; i < count; i++) {
                    client.request(0, RawClient.READ, i, i, 1 + i % 300);
                  }
                } catch (IOException failure) {
                  throw new java.io.UncheckedIOException(failure);
                }
              });
      Set<Long> answered = new HashSet<>();
      for (int i = 0; i < count; i++) {
        long cookie = client.expectReply(0);
        int offset = (int) cookie;
        int length = 1 + offset % 300;
        assertThat(client.take(length))
            .isEqualTo(Arrays.copyOfRange(image, offset, offset + length));
        assertThat(answered.add(cookie)).as("cookie %d for the first time", cookie).isTrue();
      }
      sending.get();
      client.disconnect();
    }
  }

  @Test
  void aCookieUsedTwiceIsAnsweredTwice() throws IOException {
    try (TestServer server = TestServer.of(new FakeBackend(4096));
        RawClient client = server.client()) {
      for (int i = 0; i < 10; i++) {
        client.request(0, RawClient.FLUSH, -1, 0, 0);
      }
      for (int i = 0; i < 10; i++) {
        client.expectReply(0, -1);
      }
      client.disconnect();
    }
  }

  @Test
  void theEndSaidByTheClientHasNoReply() throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(4096))) {
      for (int flags : new int[] {0, 1, 0xffff}) {
        try (RawClient client = server.client()) {
          client.request(flags, RawClient.DISC, 1, 77, 88).expectEnd();
        }
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
