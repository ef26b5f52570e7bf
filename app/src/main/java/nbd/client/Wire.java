package nbd.client;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.GatheringByteChannel;
import java.nio.channels.ReadableByteChannel;
import java.nio.channels.SocketChannel;
import java.util.Optional;
import nbd.client.Endpoint.Tcp;
import nbd.client.NbdUri.TlsParameters;
import nbd.posix.Pipe;
import nbd.posix.SpliceSocket;
import nbd.threads.ProcessorSharing;
import nbd.threads.VirtualThreads;
import nbd.tls.TlsChannel;
import nbd.tls.TlsClient;
import org.tinylog.Logger;

/**
 * The socket of a connection, with TLS above it from {@link #startTls} on. It notes when the server
 * was last active. One thread may read while another one writes; any thread may close.
 */
final class Wire implements ReadableByteChannel {
  private final SocketChannel socket;
  private ReadableByteChannel in;
  private GatheringByteChannel out;
  private Optional<SpliceSocket> spliced = Optional.empty();
  private Runnable beforeWaiting = () -> {};
  private volatile long lastActive = System.nanoTime();

  /** Takes a connected socket in blocking mode. */
  Wire(SocketChannel socket) {
    this.socket = socket;
    this.in = socket;
    this.out = socket;
  }

  /**
   * Continues inside TLS, while no other thread uses the connection. The certificates are read anew
   * for each connection, so that they can be replaced at any time. As in libnbd, the server's
   * certificate has to name the URI's host or its {@code tls-hostname}; over a Unix socket without
   * that, any name is accepted.
   */
  void startTls(NbdUri server) throws IOException {
    TlsParameters parameters = server.tlsParameters();
    String host = server.endpoint() instanceof Tcp tcp ? tcp.host() : "";
    TlsChannel tls =
        TlsClient.load(parameters.certificates(), parameters.verifyPeer().orElse(true))
            .client(socket, parameters.hostname().orElse(host));
    in = tls;
    out = tls;
  }

  /** Lets data be spliced from now on, after the handshake, where that is possible. */
  void splice() {
    if (!(out instanceof TlsChannel)) {
      try {
        VirtualThreads.stopBlocking(socket);
        spliced = SpliceSocket.of(socket);
      } catch (IOException broken) {
        Logger.debug("nothing is spliced: {}", broken.getMessage());
      }
    }
  }

  /** Sets what the thread that reads runs before each read, which may wait. */
  void beforeWaiting(Runnable task) {
    beforeWaiting = task;
  }

  /** Returns the socket as an end of splice(2); empty where that is not possible. */
  Optional<SpliceSocket> spliced() {
    return spliced;
  }

  /** Returns when the server last sent or took something, as {@link System#nanoTime} counts. */
  long lastActive() {
    return lastActive;
  }

  @Override
  public int read(ByteBuffer into) throws IOException {
    beforeWaiting.run();
    ProcessorSharing.MACHINE.giveWay();
    int read = in.read(into);
    lastActive = System.nanoTime();
    return read;
  }

  /** Writes one buffer whole. */
  void write(ByteBuffer bytes) throws IOException {
    out.write(bytes);
    while (bytes.hasRemaining()) {
      lastActive = System.nanoTime();
      out.write(bytes);
    }
  }

  /** Writes the first {@code count} buffers whole. */
  void write(ByteBuffer[] buffers, int count) throws IOException {
    int first = 0;
    while (first < count) {
      if (!buffers[first].hasRemaining()) {
        first++;
        continue;
      }
      out.write(buffers, first, count - first);
      if (buffers[count - 1].hasRemaining()) {
        lastActive = System.nanoTime();
      }
    }
  }

  /**
   * Writes all that a pipe holds.
   *
   * @param piece direct; for data that is copied, since the server takes no more at the moment
   */
  void write(Pipe from, ByteBuffer piece) throws IOException {
    SpliceSocket end = spliced.orElseThrow();
    while (from.held() > 0) {
      if (end.drain(from) == 0) {
        // Writing is the way to wait.
        from.take(piece.clear());
        write(piece.flip());
      }
      lastActive = System.nanoTime();
    }
  }

  @Override
  public boolean isOpen() {
    return socket.isOpen();
  }

  /** Closes the connection in order. With TLS, may wait for the server to take the goodbye. */
  @Override
  public void close() throws IOException {
    try {
      out.close();
    } finally {
      spliced.ifPresent(SpliceSocket::close);
      socket.close();
    }
  }

  /**
   * Closes the socket at once, and has the system drop what it has not sent yet: a request that
   * reached the server late would be carried out over newer data.
   */
  void drop() {
    try {
      if (socket.getRemoteAddress() instanceof InetSocketAddress) {
        socket.setOption(StandardSocketOptions.SO_LINGER, 0);
      }
    } catch (IOException ignored) {
      // The socket is closed already.
    } finally {
      cut();
    }
  }

  /** Closes the socket at once: threads that read or write fail. */
  void cut() {
    spliced.ifPresent(SpliceSocket::close);
    close(socket);
  }

  /** Closes a socket, whatever state it is in. */
  static void close(SocketChannel socket) {
    try {
      socket.close();
    } catch (IOException ignored) {
      // The socket is of no use any more.
    }
  }
}
