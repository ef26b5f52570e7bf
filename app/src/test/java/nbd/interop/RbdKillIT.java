package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLongArray;
import nbd.testing.CephCluster;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/**
 * Clients that write, read and flush while the OSD behind the server is killed and started again.
 * {@code -Dnbd.rbd.kills=30} kills it more often.
 */
@Timeout(1800)
final class RbdKillIT {
  private static final int KILLS = Integer.getInteger("nbd.rbd.kills", 2);
  private static final int CONNECTIONS = 8;
  private static final int BLOCK = 4096;
  private static final int BLOCKS = 4096;

  /** The number of flushes, of all connections, between two kills. */
  private static final int FLUSHES = 50;

  @TempDir private Path directory;

  @Test
  void killsOfTheOsdLoseNothingFlushedAndOnlyDelayTheClients() throws Exception {
    try (CephCluster cluster = CephCluster.start()) {
      cluster.run("rbd", "create", "disk", "--size", BLOCKS * BLOCK / 1024 + "K");
      try (ServeProcess serve =
          ServeProcess.on(directory, "rbd:rbd/disk", "--ceph-conf=" + cluster.conf())) {
        Load load = new Load(serve);
        load.awaitFlushes();
        for (int i = 0; i < KILLS; i++) {
          cluster.killOsd();
          long[] promised = Load.copy(load.flushed);
          cluster.startOsd();
          load.check(export(cluster), promised);
          load.awaitFlushes();
        }
        load.stop();
        load.check(export(cluster), Load.copy(load.written));
        serve.stop();
      }
    }
  }

  /** Reads the image by Ceph's own client, so past all that the server remembers. */
  private ByteBuffer export(CephCluster cluster) throws IOException {
    Path copy = directory.resolve("copy");
    Files.deleteIfExists(copy);
    cluster.run("rbd", "export", "disk", copy.toString());
    return ByteBuffer.wrap(Files.readAllBytes(copy));
  }

  /**
   * Connections that write numbers into blocks, each into blocks of its own and each number only
   * once, in rising order. Any of them flushes for all. A reply with an error ends a connection's
   * load, and fails the test.
   */
  private static final class Load {
    /** For each block, the last number that was sent, was answered, and was flushed. */
    private final AtomicLongArray sent = new AtomicLongArray(BLOCKS);

    private final AtomicLongArray written = new AtomicLongArray(BLOCKS);
    private final AtomicLongArray flushed = new AtomicLongArray(BLOCKS);
    private final AtomicInteger flushes = new AtomicInteger();
    private final List<Running> connections = new ArrayList<>();
    private volatile boolean stopped;

    Load(ServeProcess serve) throws IOException {
      long seed = System.nanoTime();
      System.out.println("RbdKillIT: seed " + seed);
      for (int i = 0; i < CONNECTIONS; i++) {
        int connection = i;
        RawClient client = serve.client();
        connections.add(
            Running.start(() -> run(client, connection, new Random(seed + connection))));
      }
    }

    private void run(RawClient client, int connection, Random random) throws IOException {
      for (long number = 1; !stopped; number++) {
        int block = ownBlock(connection, random);
        sent.set(block, number);
        client.write((long) block * BLOCK, content(number));
        written.set(block, number);
        int read = ownBlock(connection, random);
        assertThat(client.read((long) read * BLOCK, BLOCK))
            .as("block %d", read)
            .isEqualTo(content(written.get(read)));
        if (random.nextInt(8) == 0) {
          flush(client);
        }
      }
      flush(client);
      client.disconnect();
    }

    private static int ownBlock(int connection, Random random) {
      return connection + CONNECTIONS * random.nextInt(BLOCKS / CONNECTIONS);
    }

    private static byte[] content(long number) {
      ByteBuffer content = ByteBuffer.allocate(BLOCK);
      while (content.hasRemaining()) {
        content.putLong(number);
      }
      return content.array();
    }

    /** Flushes the writes of all connections that have been answered before. */
    private void flush(RawClient client) throws IOException {
      long[] covered = copy(written);
      client.flush();
      for (int block = 0; block < BLOCKS; block++) {
        flushed.accumulateAndGet(block, covered[block], Math::max);
      }
      flushes.incrementAndGet();
    }

    static long[] copy(AtomicLongArray numbers) {
      long[] copy = new long[BLOCKS];
      for (int block = 0; block < BLOCKS; block++) {
        copy[block] = numbers.get(block);
      }
      return copy;
    }

    /** Waits until there have been more flushes, some of them wholly after this call. */
    void awaitFlushes() throws IOException, InterruptedException {
      int enough = flushes.get() + FLUSHES;
      Eventually.isTrue(
          "clients flush",
          () -> flushes.get() >= enough || connections.stream().anyMatch(Running::isDone));
      for (Running connection : connections) {
        if (connection.isDone()) {
          connection.join();
        }
      }
    }

    void stop() throws IOException {
      stopped = true;
      for (Running connection : connections) {
        connection.join();
      }
    }

    /** Checks that every block has a number that was sent, and none from before its promise. */
    void check(ByteBuffer image, long[] promised) {
      assertThat(image.capacity()).isEqualTo(BLOCKS * BLOCK);
      for (int at = 0; at < image.capacity(); at += Long.BYTES) {
        int block = at / BLOCK;
        assertThat(image.getLong(at))
            .as("byte %d of block %d", at % BLOCK, block)
            .isBetween(promised[block], sent.get(block));
      }
    }
  }
}
