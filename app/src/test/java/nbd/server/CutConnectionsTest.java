package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import nbd.filter.ConnectionCacheFilter;
import nbd.memory.MemoryBackend;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.multiconn.TrackDirty;
import nbd.storage.Backend;
import nbd.testing.Model;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * One of several connections of a client is cut again and again, in front of storage where each
 * connection has a cache of its own: the others lose no request, and what was answered on the one
 * that was cut is visible on them after their next flush.
 */
@Timeout(300)
final class CutConnectionsTest {
  private static final int OTHERS = 3;
  private static final int CUTS = 100;
  private static final int BLOCK = 512;
  private static final int BLOCKS = 64;

  private final long seed = Model.seed();
  private volatile boolean enough;

  private Backend storage() {
    return new MultiConnFilter(
        new ConnectionCacheFilter(new MemoryBackend((OTHERS + 1L) * BLOCKS * BLOCK), 1 << 20),
        new MultiConnSettings(MultiConnMode.EMULATE, TrackDirty.CONNECTION, false, false));
  }

  /** Writes and reads its own blocks, and flushes; returns the number of rounds. */
  private int work(TestServer server, int number) throws IOException {
    Random random = new Random(seed + number);
    int rounds = 0;
    try (RawClient client = server.client()) {
      while (!enough) {
        byte[] data = new byte[BLOCK];
        random.nextBytes(data);
        long at = ((long) number * BLOCKS + random.nextInt(BLOCKS)) * BLOCK;
        client.write(at, data);
        if (random.nextInt(4) == 0) {
          client.flush();
        }
        assertThat(client.read(at, BLOCK)).isEqualTo(data);
        rounds++;
      }
      client.disconnect();
    }
    return rounds;
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void theOthersLoseNothing(boolean tcp) throws Exception {
    try (TestServer server = TestServer.with(storage()).tcp(tcp).start()) {
      List<FutureTask<Integer>> others = new ArrayList<>();
      for (int i = 1; i <= OTHERS; i++) {
        int number = i;
        others.add(new FutureTask<>(() -> work(server, number)));
        Thread.ofPlatform().name("client " + i).start(others.getLast());
      }
      Random random = new Random(seed);
      byte[] expected = new byte[BLOCKS * BLOCK];
      try (RawClient flusher = server.client()) {
        for (int cut = 0; cut < CUTS; cut++) {
          RawClient victim = server.client();
          for (int write = 1 + random.nextInt(8); write > 0; write--) {
            byte[] data = new byte[BLOCK];
            random.nextBytes(data);
            int at = random.nextInt(BLOCKS) * BLOCK;
            System.arraycopy(data, 0, expected, at, BLOCK);
            victim.write(at, data);
          }
          if (random.nextBoolean()) {
            // In the middle of a request.
            victim.send(Arrays.copyOf(RawClient.requestBytes(0, RawClient.WRITE, 1, 0, 9), 30));
          }
          victim.reset();
          flusher.flush();
          assertThat(flusher.read(0, expected.length))
              .as("seed %d, cut %d", seed, cut)
              .isEqualTo(expected);
        }
        flusher.disconnect();
      }
      enough = true;
      for (FutureTask<Integer> other : others) {
        assertThat(other.get(60, TimeUnit.SECONDS)).isPositive();
      }
    }
  }
}
