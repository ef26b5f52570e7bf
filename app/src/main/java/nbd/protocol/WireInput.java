package nbd.protocol;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ReadableByteChannel;
import nbd.posix.Pipe;
import nbd.posix.SpliceSocket;

/**
 * The input of a connection, read ahead, because a read on an empty socket costs several system
 * calls and a park, and one call can take several requests. Used by one thread.
 */
public final class WireInput {
  private final ReadableByteChannel channel;
  private ByteBuffer buffer;

  /** Longer payloads are better read to their buffer than ahead. */
  private final int longestAhead;

  /** The capacity to which the buffer may grow. */
  private int mostCapacity;

  /** Set after a read ahead has filled the buffer, so that a larger one would save calls. */
  private boolean filled;

  /** Set after a long payload, when another is likely to follow: reading ahead would copy it. */
  private boolean afterLongPayload;

  /**
   * Reads ahead into a buffer of its own.
   *
   * @param channel in blocking mode
   * @param capacity limit for {@link #fill}
   */
  public WireInput(ReadableByteChannel channel, int capacity) {
    this(channel, capacity, capacity);
  }

  /**
   * Reads ahead into a buffer of its own, which grows while the peer sends more than fits.
   *
   * @param channel in blocking mode
   * @param capacity limit for {@link #fill}, at first
   * @param mostCapacity limit for the growth
   */
  public WireInput(ReadableByteChannel channel, int capacity, int mostCapacity) {
    this(channel, ByteBuffer.allocateDirect(capacity));
    this.mostCapacity = mostCapacity;
  }

  /**
   * Reads ahead into a buffer.
   *
   * @param channel in blocking mode
   * @param buffer big-endian, used by this object only; its capacity is the limit for {@link #fill}
   */
  public WireInput(ReadableByteChannel channel, ByteBuffer buffer) {
    this.channel = channel;
    this.buffer = buffer.clear().limit(0);
    this.longestAhead = buffer.capacity();
    this.mostCapacity = longestAhead;
  }

  /**
   * Returns the bytes that have been read ahead: big-endian, from position to limit. The caller
   * takes them by moving the position, and leaves the limit as it is. Reading on may replace the
   * buffer.
   */
  public ByteBuffer buffer() {
    return buffer;
  }

  /** Returns the limit for {@link #fill}. */
  public int capacity() {
    return buffer.capacity();
  }

  /** Returns the number of bytes that have been read ahead. */
  public int buffered() {
    return buffer.remaining();
  }

  /** Takes all bytes that have been read ahead, for another input that goes on with them. */
  public ByteBuffer takeBuffered() {
    ByteBuffer taken = ByteBuffer.allocate(buffered()).put(buffer).flip();
    buffer.clear().limit(0);
    return taken;
  }

  /** Begins with bytes that another input has taken, at most {@link #capacity}. */
  public void refill(ByteBuffer taken) {
    buffer.clear();
    buffer.put(taken).flip();
  }

  /**
   * Waits until so many bytes have been read ahead.
   *
   * @return false if the stream ends before
   */
  public boolean fill(int count) throws IOException {
    return fill(count, count);
  }

  /**
   * Waits until so many bytes have been read ahead.
   *
   * @param header the bytes that come before a payload, at least {@code count}: after a long one,
   *     when another is likely to follow, no more are read ahead
   * @return false if the stream ends before
   */
  boolean fill(int count, int header) throws IOException {
    while (buffer.remaining() < count) {
      if (!readMore(header)) {
        return false;
      }
    }
    return true;
  }

  private boolean readMore(int count) throws IOException {
    if (filled && !afterLongPayload) {
      grow();
    }
    if (buffer.hasRemaining()) {
      if (buffer.capacity() - buffer.position() < count) {
        buffer.compact().flip();
      }
    } else {
      buffer.clear().limit(0);
    }
    int start = buffer.position();
    boolean isAhead = !afterLongPayload;
    int most = isAhead ? buffer.capacity() : count - buffer.remaining();
    afterLongPayload = false;
    buffer.position(buffer.limit());
    buffer.limit(Math.min(buffer.capacity(), buffer.position() + most));
    int end = buffer.position();
    try {
      int read = channel.read(buffer);
      if (read < 0) {
        return false;
      }
      filled = isAhead && !buffer.hasRemaining();
      end += read;
      return true;
    } finally {
      buffer.limit(end).position(start);
    }
  }

  private void grow() {
    filled = false;
    if (buffer.capacity() < mostCapacity) {
      try {
        int capacity = Math.min(2 * buffer.capacity(), mostCapacity);
        buffer = ByteBuffer.allocateDirect(capacity).put(buffer).flip();
      } catch (OutOfMemoryError none) {
        mostCapacity = buffer.capacity();
      }
    }
  }

  /**
   * Waits until so many bytes have been read ahead.
   *
   * @throws EOFException if the stream ends before
   */
  public void require(int count) throws IOException {
    if (!fill(count)) {
      throw new EOFException("the peer ended the stream in the middle of a message");
    }
  }

  /**
   * Fills another buffer from its position to its limit.
   *
   * @throws EOFException if the stream ends before
   */
  public void readFully(ByteBuffer into) throws IOException {
    while (into.hasRemaining()) {
      readSome(into);
    }
  }

  /**
   * Fills a part of another buffer, which has room.
   *
   * @return the number of bytes, at least one
   * @throws EOFException if the stream ends before
   */
  public int readSome(ByteBuffer into) throws IOException {
    int ready = Math.min(buffer.remaining(), into.remaining());
    if (ready > 0) {
      into.put(into.position(), buffer, buffer.position(), ready);
      into.position(into.position() + ready);
      buffer.position(buffer.position() + ready);
      afterLongPayload = into.remaining() > longestAhead;
      return ready;
    }
    afterLongPayload |= into.remaining() > longestAhead;
    int read = channel.read(into);
    if (read < 0) {
      throw new EOFException("the peer ended the stream in the middle of a message");
    }
    return read;
  }

  /**
   * Moves a part of the stream to a pipe; copies only what has been read ahead.
   *
   * @param socket of the channel
   * @param most the number of bytes wanted, at least one
   * @return the number of bytes; 0 if the pipe has no room
   * @throws EOFException if the stream ends before the first byte
   */
  public long moveSome(SpliceSocket socket, Pipe pipe, long most) throws IOException {
    afterLongPayload = true;
    long moved = buffer.hasRemaining() ? 0 : socket.fill(pipe, most);
    if (moved > 0) {
      return moved;
    }
    // Reading is the way to wait; one byte, since the rest is not to be copied.
    require(1);
    afterLongPayload = true;
    int end = buffer.limit();
    buffer.limit((int) Math.min(end, buffer.position() + most));
    try {
      return pipe.put(buffer);
    } finally {
      buffer.limit(end);
    }
  }

  /**
   * Skips so many bytes.
   *
   * @throws EOFException if the stream ends before
   */
  public void skip(long count) throws IOException {
    long left = count;
    while (true) {
      int ready = (int) Math.min(buffer.remaining(), left);
      buffer.position(buffer.position() + ready);
      left -= ready;
      if (left == 0) {
        return;
      }
      require(1);
    }
  }
}
