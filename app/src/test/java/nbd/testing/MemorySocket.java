package nbd.testing;

import java.io.IOException;
import java.net.Socket;
import java.net.SocketAddress;
import java.net.SocketOption;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousCloseException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SocketChannel;
import java.nio.channels.spi.SelectorProvider;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * A connected socket that makes no system call: the other end is an object of the test. This peer
 * is asked for bytes when all that it has sent was read, and again whenever it has received
 * something. If it stays silent for good, a blocking read fails with an {@link AssertionError}
 * instead of hanging.
 *
 * <p>Invariant: everything is guarded by the lock, so the peer is called by one thread at a time.
 */
public final class MemorySocket extends SocketChannel {
  private static final long HANG_SECONDS = 120;

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Peer peer;
  private final int most;
  private ByteBuffer arrived = ByteBuffer.allocate(0);
  private boolean ended;
  private boolean closed;

  /** The other end. */
  public interface Peer {
    /**
     * Returns the bytes that it sends next.
     *
     * @return empty if it sends nothing before it has received more; no bytes at the end of its
     *     stream
     */
    Optional<byte[]> send();

    /** Takes bytes that the socket has written. */
    void receive(byte[] bytes);
  }

  /**
   * Connects to a peer.
   *
   * @param most the most bytes that one call moves
   */
  public MemorySocket(Peer peer, int most) {
    super(SelectorProvider.provider());
    this.peer = peer;
    this.most = most;
  }

  public boolean isClosed() {
    lock.lock();
    try {
      return closed;
    } finally {
      lock.unlock();
    }
  }

  @Override
  public int read(ByteBuffer into) throws IOException {
    lock.lock();
    try {
      boolean wasOpen = !closed;
      while (!closed && !ended && !arrived.hasRemaining()) {
        Optional<byte[]> sent = peer.send();
        if (sent.isPresent()) {
          arrived = ByteBuffer.wrap(sent.get());
          ended = sent.get().length == 0;
        } else if (!isBlocking()) {
          return 0;
        } else if (!changed.await(HANG_SECONDS, TimeUnit.SECONDS)) {
          throw new AssertionError("both ends wait for each other: " + peer);
        }
      }
      if (closed) {
        throw wasOpen ? new AsynchronousCloseException() : new ClosedChannelException();
      }
      if (!arrived.hasRemaining()) {
        return -1;
      }
      int count = Math.min(most, Math.min(into.remaining(), arrived.remaining()));
      into.put(into.position(), arrived, arrived.position(), count);
      into.position(into.position() + count);
      arrived.position(arrived.position() + count);
      return count;
    } catch (InterruptedException interrupted) {
      throw new AssertionError("somebody interrupts", interrupted);
    } finally {
      lock.unlock();
    }
  }

  @Override
  public int write(ByteBuffer from) throws IOException {
    lock.lock();
    try {
      if (closed) {
        throw new ClosedChannelException();
      }
      byte[] bytes = new byte[Math.min(most, from.remaining())];
      from.get(bytes);
      peer.receive(bytes);
      changed.signalAll();
      return bytes.length;
    } finally {
      lock.unlock();
    }
  }

  @Override
  public long read(ByteBuffer[] into, int offset, int length) throws IOException {
    for (int i = offset; i < offset + length; i++) {
      if (into[i].hasRemaining()) {
        return read(into[i]);
      }
    }
    return 0;
  }

  @Override
  public long write(ByteBuffer[] from, int offset, int length) throws IOException {
    long written = 0;
    for (int i = offset; i < offset + length; i++) {
      written += write(from[i]);
      if (from[i].hasRemaining()) {
        break;
      }
    }
    return written;
  }

  @Override
  public SocketChannel shutdownInput() {
    lock.lock();
    try {
      ended = true;
      changed.signalAll();
      return this;
    } finally {
      lock.unlock();
    }
  }

  @Override
  protected void implCloseSelectableChannel() {
    lock.lock();
    try {
      closed = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  @Override
  protected void implConfigureBlocking(boolean block) {
    // Each read looks at the mode.
  }

  @Override
  public SocketAddress getRemoteAddress() {
    return null;
  }

  @Override
  public SocketAddress getLocalAddress() {
    return null;
  }

  @Override
  public boolean isConnected() {
    return true;
  }

  @Override
  public boolean isConnectionPending() {
    return false;
  }

  @Override
  public boolean finishConnect() {
    return true;
  }

  @Override
  public SocketChannel bind(SocketAddress local) {
    throw new UnsupportedOperationException();
  }

  @Override
  public boolean connect(SocketAddress remote) {
    throw new UnsupportedOperationException();
  }

  @Override
  public SocketChannel shutdownOutput() {
    throw new UnsupportedOperationException();
  }

  @Override
  public Socket socket() {
    throw new UnsupportedOperationException();
  }

  @Override
  public <T> SocketChannel setOption(SocketOption<T> name, T value) {
    throw new UnsupportedOperationException();
  }

  @Override
  public <T> T getOption(SocketOption<T> name) {
    throw new UnsupportedOperationException();
  }

  @Override
  public Set<SocketOption<?>> supportedOptions() {
    return Set.of();
  }
}
