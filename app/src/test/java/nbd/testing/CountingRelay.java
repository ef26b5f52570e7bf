package nbd.testing;

import java.io.Closeable;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.concurrent.atomic.AtomicLong;

/** A relay between clients and a server, on a TCP port of its own, that counts bytes. */
public final class CountingRelay implements Closeable {
  private final ServerSocketChannel listener;
  private final SocketAddress server;
  private final AtomicLong toClients = new AtomicLong();
  private final AtomicLong toServer = new AtomicLong();

  /** Starts a relay to a server. */
  public CountingRelay(SocketAddress server) throws IOException {
    this.server = server;
    this.listener = ServerSocketChannel.open();
    listener.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    Thread.ofVirtual().start(this::accept);
  }

  /** Returns the port on which it accepts clients. */
  public int port() throws IOException {
    return ((InetSocketAddress) listener.getLocalAddress()).getPort();
  }

  /** Returns the number of bytes that the server has sent. */
  public long bytesToClients() {
    return toClients.get();
  }

  /** Returns the number of bytes that the clients have sent. */
  public long bytesToServer() {
    return toServer.get();
  }

  private void accept() {
    try {
      while (true) {
        SocketChannel client = listener.accept();
        SocketChannel upstream = SocketChannel.open(server);
        Thread.ofVirtual().start(() -> copy(client, upstream, toServer));
        Thread.ofVirtual().start(() -> copy(upstream, client, toClients));
      }
    } catch (IOException closed) {
      // The test is over.
    }
  }

  private static void copy(SocketChannel from, SocketChannel to, AtomicLong count) {
    ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 18);
    try {
      while (from.read(buffer.clear()) >= 0) {
        count.addAndGet(buffer.flip().remaining());
        while (buffer.hasRemaining()) {
          to.write(buffer);
        }
      }
      to.shutdownOutput();
    } catch (IOException gone) {
      closeQuietly(from);
      closeQuietly(to);
    }
  }

  private static void closeQuietly(SocketChannel channel) {
    try {
      channel.close();
    } catch (IOException ignored) {
      // It is gone already.
    }
  }

  @Override
  public void close() throws IOException {
    listener.close();
  }
}
