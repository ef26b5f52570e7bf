package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import nbd.memory.MemoryBackend;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.multiconn.TrackDirty;
import nbd.protocol.BlockSizes;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.FarBackend;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Requests to storage that begins them and reports their end later. */
@Timeout(300)
final class BegunRequestsTest {
  private static final int BLOCK = 512;
  private static final int BLOCKS = 256;

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3})
  void repliesThatEndInAnyOrderBelongToTheirRequests(long seed) throws Exception {
    FarBackend far = new FarBackend(new MemoryBackend(BLOCK * BLOCKS), seed);
    try (TestServer server = TestServer.of(far);
        RawClient client = server.client()) {
      byte[] content = Bytes.random(seed, BLOCK * BLOCKS);
      for (int block = 0; block < BLOCKS; block++) {
        byte[] data = new byte[BLOCK];
        System.arraycopy(content, block * BLOCK, data, 0, BLOCK);
        client.request(0, RawClient.WRITE, block, (long) block * BLOCK, BLOCK, data);
      }
      Map<Long, Boolean> answered = new HashMap<>();
      for (int i = 0; i < BLOCKS; i++) {
        assertThat(answered.put(client.expectReply(0), true)).isNull();
      }
      client.flush();
      Random random = new Random(seed);
      Map<Long, Integer> asked = new HashMap<>();
      for (long cookie = 0; cookie < 500; cookie++) {
        int block = random.nextInt(BLOCKS);
        asked.put(cookie, block);
        client.request(0, RawClient.READ, cookie, (long) block * BLOCK, BLOCK);
      }
      for (int i = 0; i < 500; i++) {
        Integer block = asked.remove(client.expectReply(0));
        assertThat(block).isNotNull();
        assertThat(client.take(BLOCK)).isEqualTo(slice(content, block));
      }
      client.disconnect();
    }
  }

  private static byte[] slice(byte[] content, int block) {
    return java.util.Arrays.copyOfRange(content, block * BLOCK, (block + 1) * BLOCK);
  }

  @Test
  void longPayloadsAndReadsAreBegunToo() throws Exception {
    int length = 300_000;
    FarBackend far = new FarBackend(new MemoryBackend(1 << 20), 1);
    try (TestServer server = TestServer.of(far);
        RawClient client = server.client()) {
      byte[] data = Bytes.random(7, length);
      assertThat(client.write(12345, data).read(12345, length)).isEqualTo(data);
      client.disconnect();
    }
  }

  @Test
  void whatFailsIsAnsweredWithItsErrorAndTheRestGoesOn() throws Exception {
    FarBackend far = new FarBackend(new MemoryBackend(1 << 20), 1);
    try (TestServer server = TestServer.of(far);
        RawClient client = server.client()) {
      server.expectErrors();
      far.fail(new NbdException(NbdError.ENOSPC, "full"));
      client.call(RawClient.ENOSPC, 0, RawClient.WRITE, 0, 4, new byte[4]);
      far.fail(new IOException("broken"));
      client.call(RawClient.EIO, 0, RawClient.READ, 0, 4);
      client.call(0, 0, RawClient.TRIM, 0, 4);
      client.disconnect();
    }
  }

  @Test
  void whileOneIsInFlightOthersAreAnsweredAndGoodbyeWaits() throws Exception {
    FarBackend far = new FarBackend(new MemoryBackend(1 << 20), 1);
    try (TestServer server = TestServer.of(far);
        RawClient client = server.client()) {
      far.hold();
      client.request(0, RawClient.READ, 1, 0, 4);
      client.request(0, RawClient.WRITE, 2, 8, 4, new byte[4]);
      Eventually.isTrue("both are begun", () -> far.held() == 2);
      client.flush();
      client.request(0, RawClient.DISC, 0, 0, 0);
      far.release();
      long first = client.expectReply(0);
      if (first == 1) {
        client.take(4);
        client.expectReply(0, 2);
      } else {
        client.expectReply(0, 1).take(4);
      }
      client.expectEnd();
    }
  }

  @Test
  void aClientThatIsGoneWhileSomeAreInFlightLeavesNothingBehind() throws Exception {
    FarBackend far = new FarBackend(new MemoryBackend(1 << 20), 1);
    try (TestServer server = TestServer.of(far)) {
      far.hold();
      RawClient client = server.client();
      for (int i = 0; i < 50; i++) {
        client.request(0, RawClient.READ, i, 0, 4096);
      }
      Eventually.isTrue("all are begun", () -> far.held() == 50);
      client.close();
      far.release();
    }
  }

  @Test
  void aClientThatTakesNoRepliesDoesNotHoldUpWhoTellsTheEnd() throws Exception {
    int length = 1 << 20;
    FarBackend far = new FarBackend(new MemoryBackend(1 << 24), 1);
    try (TestServer server = TestServer.of(far);
        RawClient stalled = server.client()) {
      far.hold();
      for (int i = 0; i < 40; i++) {
        stalled.request(0, RawClient.READ, i, 0, length);
      }
      Eventually.isTrue("some are begun", () -> far.held() > 10);
      // The ends are told on this thread: it would not come back if one waited for the client.
      far.release();
      try (RawClient other = server.client()) {
        other.write(0, (byte) 1).flush();
        assertThat(other.read(0, 1)).containsExactly(1);
        other.disconnect();
      }
      for (int i = 0; i < 40; i++) {
        stalled.expectReply(0);
        stalled.take(length);
      }
      stalled.disconnect();
    }
  }

  /** The long read waits for the reply that is being sent, and the short one would with it. */
  @Test
  void aReadThatWasBegunEndsThoughItsClientTakesNoReplies() throws Exception {
    int length = 8 << 20;
    Capabilities alone = Capabilities.of(Capability.FUA, Capability.WRITE, Capability.FLUSH);
    FarBackend far = new FarBackend(new FakeBackend(length, BlockSizes.DEFAULT, alone), 1);
    try (TestServer server =
            TestServer.of(
                new MultiConnFilter(
                    far,
                    new MultiConnSettings(
                        MultiConnMode.EMULATE, TrackDirty.CONNECTION, false, false)));
        RawClient stalled = server.client();
        RawClient other = server.client()) {
      stalled.request(0, RawClient.READ, 1, 0, length).expectReply(0, 1);
      stalled.send(
          Bytes.of()
              .raw(RawClient.requestBytes(0, RawClient.READ, 2, 0, 4096))
              .raw(RawClient.requestBytes(0, RawClient.READ, 3, 0, length))
              .toArray());
      Eventually.isTrue("the short one is begun", () -> server.memoryInFlight() > 2L * length);
      // A flush waits for reads that have begun.
      other.write(0, (byte) 1).flush();
      stalled.take(length);
      stalled.expectReply(0, 2).take(4096);
      stalled.expectReply(0, 3).take(length);
      stalled.disconnect();
      other.disconnect();
    }
  }

  @Test
  void aHandleThatDoesNotBeginIsCalledInTheOrdinaryWay() throws Exception {
    try (TestServer server = TestServer.of(new FakeBackend(1 << 16));
        RawClient client = server.client()) {
      byte[] data = Bytes.random(1, 1000);
      assertThat(client.write(5, data).read(5, 1000)).isEqualTo(data);
      client.disconnect();
    }
  }
}
