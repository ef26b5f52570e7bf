package nbd.server;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.channels.ReadableByteChannel;
import java.nio.channels.WritableByteChannel;
import java.util.Optional;
import nbd.protocol.NbdException;
import nbd.protocol.ProtocolException;
import nbd.protocol.WireInput;
import nbd.storage.BufferPool;
import nbd.tls.TlsChannel;
import nbd.tls.TlsServer;

/**
 * The input and output of a connection: its socket, or TLS above it after STARTTLS. Used by the
 * connection's thread. Other threads may write to {@link #out} once the handshake is over.
 */
final class Wire {
  private final Socket socket;
  private final BufferPool buffers;
  private final ByteBuffer buffer;
  private WireInput in;
  private Optional<TlsChannel> tls = Optional.empty();

  /**
   * Uses a socket, whose two directions are given apart.
   *
   * @param ahead how many bytes to read ahead; the memory is kept while the connection is idle
   * @throws NbdException ENOMEM if there is no memory for reading ahead
   */
  Wire(ReadableByteChannel input, ByteChannel output, BufferPool buffers, int ahead)
      throws NbdException {
    this.socket = new Socket(input, output);
    this.buffers = buffers;
    this.buffer = buffers.takeReserved(ahead);
    this.in = new WireInput(input, buffer);
  }

  /** Returns the input; another one after {@link #startTls}. */
  WireInput in() {
    return in;
  }

  /**
   * Returns the output; another one after {@link #startTls}. Without TLS it is the socket itself,
   * because sendfile works with no other channel.
   */
  WritableByteChannel out() {
    return tls.isPresent() ? tls.get() : socket.output();
  }

  /** Returns whether TLS is in use. */
  boolean isSecure() {
    return tls.isPresent();
  }

  /**
   * Checks that nothing was received behind STARTTLS. A client waits for its answer; so a man in
   * the middle has sent it, to be taken for the client's inside TLS.
   */
  void requireNothingAhead() throws ProtocolException {
    if (in.buffered() > 0) {
      throw new ProtocolException(
          "%d bytes came behind STARTTLS, before its answer".formatted(in.buffered()));
    }
  }

  /**
   * Does the TLS handshake.
   *
   * @throws javax.net.ssl.SSLException if client and server cannot agree
   */
  TlsChannel startTls(TlsServer server) throws IOException {
    TlsChannel channel = server.accept(socket);
    tls = Optional.of(channel);
    in = new WireInput(channel, buffer);
    return channel;
  }

  /** Ends TLS with close_notify, and then closes the socket. Called once; no reads follow. */
  void close() throws IOException {
    buffers.giveBack(buffer);
    if (tls.isPresent()) {
      tls.get().close();
    }
  }

  /** The two directions of a socket. */
  private record Socket(ReadableByteChannel input, ByteChannel output) implements ByteChannel {
    @Override
    public int read(ByteBuffer into) throws IOException {
      return input.read(into);
    }

    @Override
    public int write(ByteBuffer from) throws IOException {
      return output.write(from);
    }

    @Override
    public boolean isOpen() {
      return output.isOpen();
    }

    @Override
    public void close() throws IOException {
      output.close();
    }
  }
}
