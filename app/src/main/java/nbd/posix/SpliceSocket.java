package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.EOFException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SocketChannel;
import java.util.Optional;
import java.util.concurrent.locks.ReentrantLock;
import org.tinylog.Logger;

/**
 * A socket as an end of splice(2), by a descriptor of its own: the channel's may belong to another
 * file as soon as the channel is closed. The peer sees the socket's end when both are closed.
 *
 * <p>No call waits, since the channel's user has put the socket in non-blocking mode. Any thread
 * may call.
 */
public final class SpliceSocket implements AutoCloseable {
  private static final int SPLICE_F_MOVE = 1;
  private static final int SPLICE_F_NONBLOCK = 2;

  private final Calls calls;
  private final int fd;

  /** Held during each call, so that the descriptor is closed by none of them. */
  private final ReentrantLock lock = new ReentrantLock();

  private boolean closed;

  private SpliceSocket(Calls calls, int fd) {
    this.calls = calls;
    this.fd = fd;
  }

  /** Opens a channel's socket; empty where the system or the JDK does not let it be spliced. */
  public static Optional<SpliceSocket> of(SocketChannel channel) {
    if (Calls.LINKED.isEmpty() || SocketDescriptor.of(channel).isEmpty()) {
      return Optional.empty();
    }
    try {
      return Optional.of(new SpliceSocket(Calls.LINKED.get(), Descriptor.of(channel).release()));
    } catch (IOException failure) {
      Logger.debug("large requests are copied: {}", failure.getMessage());
      return Optional.empty();
    }
  }

  /**
   * Moves bytes that have arrived to a pipe.
   *
   * @return the number of bytes; 0 if nothing has arrived, or the pipe has no room
   */
  public long fill(Pipe pipe, long most) throws IOException {
    long count = splice(fd, pipe.sink, most);
    if (count == 0) {
      throw new EOFException("the peer ended the stream in the middle of a message");
    }
    if (count < 0) {
      return 0;
    }
    pipe.moved(count);
    return count;
  }

  /**
   * Moves bytes from a pipe to the peer.
   *
   * @return the number of bytes; 0 if the peer takes none at the moment
   */
  public long drain(Pipe pipe) throws IOException {
    long count = Math.max(0, splice(pipe.source, fd, pipe.held()));
    pipe.moved(-count);
    return count;
  }

  /**
   * Sends as much of the buffers, in their order, as the peer takes at the moment.
   *
   * @return the number of bytes
   */
  public long put(ByteBuffer[] from) throws IOException {
    long count;
    lock.lock();
    try {
      requireOpen();
      count =
          Calls.tried(
              "writev",
              "a socket",
              (arena, state) -> {
                long vector = vector(arena, from).address();
                return (long) calls.writev.invokeExact(state, fd, vector, (long) from.length);
              });
    } finally {
      lock.unlock();
      Reference.reachabilityFence(from);
    }
    long left = count;
    for (int i = 0; left > 0; i++) {
      int part = (int) Math.min(left, from[i].remaining());
      from[i].position(from[i].position() + part);
      left -= part;
    }
    return Math.max(0, count);
  }

  /** Makes an array of struct iovec; buffers that are not direct are copied. */
  private static MemorySegment vector(Arena arena, ByteBuffer[] from) {
    MemorySegment vector = arena.allocate(2L * Long.BYTES * from.length, Long.BYTES);
    for (int i = 0; i < from.length; i++) {
      MemorySegment bytes = MemorySegment.ofBuffer(from[i]);
      if (!bytes.isNative()) {
        bytes = arena.allocate(bytes.byteSize()).copyFrom(bytes);
      }
      vector.setAtIndex(JAVA_LONG, 2L * i, bytes.address());
      vector.setAtIndex(JAVA_LONG, 2L * i + 1, bytes.byteSize());
    }
    return vector;
  }

  /** The lock is held. */
  private void requireOpen() throws ClosedChannelException {
    if (closed) {
      throw new ClosedChannelException();
    }
  }

  private long splice(int from, int to, long most) throws IOException {
    lock.lock();
    try {
      requireOpen();
      return Calls.tried(
          "splice",
          "a socket",
          (_, state) ->
              (long)
                  calls.splice.invokeExact(
                      state, from, 0L, to, 0L, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void close() {
    lock.lock();
    try {
      if (!closed) {
        closed = true;
        int _ = (int) calls.close.invokeExact(fd);
      }
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    } finally {
      lock.unlock();
    }
  }
}
