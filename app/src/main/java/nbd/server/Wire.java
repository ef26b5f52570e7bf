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
 * What a connection's bytes come from and go to: its socket, or from STARTTLS on, TLS above it.
 * Used by the connection's own thread; others may write to what {@link #out} gives once the
 * handshake is over.
 */
final class Wire {
  /** Read ahead: a hundred requests, or seven writes of 4 KiB. An idle connection keeps it. */
  private static final int INPUT_BYTES = 32 << 10;

  private final Socket socket;
  private final BufferPool buffers;
  private final ByteBuffer buffer;
  private WireInput in;
  private Optional<TlsChannel> tls = Optional.empty();

  /**
   * Uses a socket, of which the two are one direction each.
   *
   * @throws NbdException ENOMEM if there is no memory for what is read ahead
   */
  Wire(ReadableByteChannel input, ByteChannel output, BufferPool buffers) throws NbdException {
    this.socket = new Socket(input, output);
    this.buffers = buffers;
    this.buffer = buffers.takeReserved(INPUT_BYTES);
    this.in = new WireInput(input, buffer);
  }

  /** What arrives; another one after {@link #startTls}. */
  WireInput in() {
    return in;
  }

  /**
   * Where replies go; another one after {@link #startTls}. Before, the socket itself, for which the
   * kernel has ways that it has for no other channel.
   */
  WritableByteChannel out() {
    return tls.isPresent() ? tls.get() : socket.output();
  }

  /** Whether TLS protects what is sent and received from now on. */
  boolean isSecure() {
    return tls.isPresent();
  }

  /**
   * Checks that nothing has come that the client could not have been asked for: it would have been
   * put there by somebody else, to be taken for the client's.
   */
  void requireNothingAhead() throws ProtocolException {
    if (in.buffered() > 0) {
      throw new ProtocolException(
          "%d bytes came behind STARTTLS, before its answer".formatted(in.buffered()));
    }
  }

  /**
   * Does the TLS handshake; what was read ahead before is not looked at again.
   *
   * @throws javax.net.ssl.SSLException if the two cannot agree
   */
  TlsChannel startTls(TlsServer server) throws IOException {
    TlsChannel channel = server.accept(socket);
    tls = Optional.of(channel);
    in = new WireInput(channel, buffer);
    return channel;
  }

  /**
   * Ends TLS with close_notify, as the protocol asks for; the socket is closed then. Called once,
   * and nothing is read after that.
   */
  void close() throws IOException {
    buffers.giveBack(buffer);
    if (tls.isPresent()) {
      tls.get().close();
    }
  }

  /** The two directions in one. */
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
