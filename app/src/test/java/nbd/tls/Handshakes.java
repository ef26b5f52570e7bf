package nbd.tls;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import nbd.testing.Bytes;
import nbd.testing.ChannelPair;

/** Two peers in one process that do the TLS handshake with each other. */
final class Handshakes {
  /** A time limit that only a hang reaches. */
  static final long HANG_SECONDS = 120;

  private Handshakes() {}

  @FunctionalInterface
  interface Side<T> {
    T run() throws Exception;
  }

  /** The channels of both sides after the handshake. */
  record Connected(ByteChannel server, ByteChannel client) implements AutoCloseable {
    /** Sends something both ways. */
    void exchange() throws Exception {
      byte[] data = Bytes.random(1, 100_000);
      for (ByteChannel[] way : new ByteChannel[][] {{server, client}, {client, server}}) {
        Future<byte[]> arrived = start(() -> take(way[1], data.length));
        writeAll(way[0], data);
        assertThat(await(arrived)).isEqualTo(data);
      }
    }

    @Override
    public void close() throws IOException {
      client.close();
      server.close();
    }
  }

  /** Connects a server and a client by a channel in memory. */
  static Connected connect(TlsServer server, TlsClient client, String host) throws Exception {
    ChannelPair pair = new ChannelPair(1 << 16, 1 << 16);
    return connect(pair, () -> server.accept(pair.left()), () -> client.client(pair.right(), host));
  }

  /** Does both handshakes, and throws the failure of one, the server's first. */
  static Connected connect(
      ChannelPair pair, Side<? extends ByteChannel> server, Side<? extends ByteChannel> client)
      throws Exception {
    Future<? extends ByteChannel> one = start(() -> orClose(server, pair.left()));
    Future<? extends ByteChannel> other = start(() -> orClose(client, pair.right()));
    ByteChannel accepted;
    try {
      accepted = await(one);
    } catch (IOException refused) {
      try {
        await(other);
      } catch (IOException told) {
        refused.addSuppressed(told);
      }
      throw refused;
    }
    return new Connected(accepted, await(other));
  }

  private static ByteChannel orClose(Side<? extends ByteChannel> side, ByteChannel end)
      throws Exception {
    try {
      return side.run();
    } catch (IOException failure) {
      end.close();
      throw failure;
    }
  }

  /** Runs something on a thread of its own. */
  static <T> Future<T> start(Side<T> side) {
    FutureTask<T> task = new FutureTask<>(side::run);
    Thread.ofVirtual().start(task);
    return task;
  }

  /** Waits for the result or the failure. */
  static <T> T await(Future<T> future) throws Exception {
    try {
      return future.get(HANG_SECONDS, TimeUnit.SECONDS);
    } catch (ExecutionException failed) {
      if (failed.getCause() instanceof Exception failure) {
        throw failure;
      }
      throw failed;
    }
  }

  /** Reads exactly so many bytes. */
  static byte[] take(ByteChannel from, int count) throws IOException {
    ByteBuffer into = ByteBuffer.allocate(count);
    while (into.hasRemaining()) {
      assertThat(from.read(into)).as("after %d bytes", into.position()).isPositive();
    }
    return into.array();
  }

  /** Writes everything. */
  static void writeAll(ByteChannel to, byte... data) throws IOException {
    ByteBuffer left = ByteBuffer.wrap(data);
    while (left.hasRemaining()) {
      to.write(left);
    }
  }
}
