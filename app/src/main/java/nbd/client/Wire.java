package nbd.client;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.channels.GatheringByteChannel;
import java.nio.channels.ReadableByteChannel;
import java.nio.channels.SocketChannel;
import nbd.threads.ProcessorSharing;

/**
 * The socket of a connection, and perhaps TLS on top of it. It notes when the server was last heard
 * of. One thread may read while another one writes; closing is for any thread.
 */
final class Wire implements ReadableByteChannel {
  private final SocketChannel socket;
  private ByteChannel channel;
  private volatile long heard = System.nanoTime();

  /** Takes a connected socket in blocking mode. */
  Wire(SocketChannel socket) {
    this.socket = socket;
    this.channel = socket;
  }

  /** Continues inside TLS; nobody else may use it meanwhile. */
  void upgrade(TlsUpgrade tls, NbdUri server) throws IOException {
    channel = tls.upgrade(socket, server);
  }

  /** When the server last sent or took something, in the terms of {@link System#nanoTime}. */
  long heard() {
    return heard;
  }

  @Override
  public int read(ByteBuffer into) throws IOException {
    ProcessorSharing.MACHINE.giveWay();
    int read = channel.read(into);
    heard = System.nanoTime();
    return read;
  }

  /** Writes one buffer whole. */
  void write(ByteBuffer bytes) throws IOException {
    channel.write(bytes);
    while (bytes.hasRemaining()) {
      heard = System.nanoTime();
      channel.write(bytes);
    }
  }

  /** Writes so many buffers whole, one after the other. */
  void write(ByteBuffer[] buffers, int count) throws IOException {
    if (!(channel instanceof GatheringByteChannel gathering)) {
      for (int i = 0; i < count; i++) {
        write(buffers[i]);
      }
      return;
    }
    int first = 0;
    while (true) {
      while (first < count && !buffers[first].hasRemaining()) {
        first++;
      }
      if (first == count) {
        return;
      }
      gathering.write(buffers, first, count - first);
      if (buffers[count - 1].hasRemaining()) {
        // Whoever waited to get rid of the rest has heard of the server.
        heard = System.nanoTime();
      }
    }
  }

  @Override
  public boolean isOpen() {
    return socket.isOpen();
  }

  /** Ends it in order; may wait where there is TLS. */
  @Override
  public void close() throws IOException {
    try {
      channel.close();
    } finally {
      socket.close();
    }
  }

  /**
   * Ends it at once, and has the system drop what it has not sent yet: a request that reached the
   * server late would be carried out over newer data.
   */
  void drop() {
    try {
      if (socket.getRemoteAddress() instanceof InetSocketAddress) {
        socket.setOption(StandardSocketOptions.SO_LINGER, 0);
      }
    } catch (IOException ignored) {
      // It is gone, which is what was wanted.
    } finally {
      cut();
    }
  }

  /** Ends it at once: whoever waits for it fails. */
  void cut() {
    try {
      socket.close();
    } catch (IOException ignored) {
      // It is gone, which is what was wanted.
    }
  }
}
