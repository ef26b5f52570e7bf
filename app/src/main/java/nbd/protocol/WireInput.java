package nbd.protocol;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ReadableByteChannel;

/**
 * What arrives on a connection, read ahead: a read on an empty socket costs several system calls
 * and a park, and several requests that arrive together are taken by one call. Used by one thread.
 */
public final class WireInput {
  private final ReadableByteChannel channel;
  private final ByteBuffer buffer;

  /** After a long payload the next one is likely to follow: what is read ahead has to be copied. */
  private boolean afterLongPayload;

  /**
   * Reads ahead up to so many bytes.
   *
   * @param channel in blocking mode
   * @param capacity the longest piece that {@link #fill} can be asked for
   */
  public WireInput(ReadableByteChannel channel, int capacity) {
    this(channel, ByteBuffer.allocateDirect(capacity));
  }

  /**
   * Reads ahead into a buffer.
   *
   * @param channel in blocking mode
   * @param buffer big-endian, and used by this object only; its capacity is the longest piece that
   *     {@link #fill} can be asked for
   */
  public WireInput(ReadableByteChannel channel, ByteBuffer buffer) {
    this.channel = channel;
    this.buffer = buffer.clear().limit(0);
  }

  /**
   * What has been read and not been taken: big-endian, from its position to its limit. The caller
   * takes bytes by moving the position, and leaves the limit as it is.
   */
  public ByteBuffer buffer() {
    return buffer;
  }

  /** The longest piece that can be buffered, in bytes. */
  public int capacity() {
    return buffer.capacity();
  }

  /** How many bytes are there to be taken without waiting. */
  public int buffered() {
    return buffer.remaining();
  }

  /**
   * Waits until so many bytes are buffered.
   *
   * @return false if the peer ended the stream before
   */
  public boolean fill(int count) throws IOException {
    while (buffer.remaining() < count) {
      if (!readMore(count)) {
        return false;
      }
    }
    return true;
  }

  private boolean readMore(int count) throws IOException {
    if (buffer.hasRemaining()) {
      if (buffer.capacity() - buffer.position() < count) {
        buffer.compact().flip();
      }
    } else {
      buffer.clear().limit(0);
    }
    int start = buffer.position();
    int most = afterLongPayload ? count - buffer.remaining() : buffer.capacity();
    afterLongPayload = false;
    buffer.position(buffer.limit());
    buffer.limit(Math.min(buffer.capacity(), buffer.position() + most));
    int end = buffer.position();
    try {
      int read = channel.read(buffer);
      if (read < 0) {
        return false;
      }
      end += read;
      return true;
    } finally {
      buffer.limit(end).position(start);
    }
  }

  /**
   * As {@link #fill}.
   *
   * @throws EOFException if the peer ended the stream before
   */
  public void require(int count) throws IOException {
    if (!fill(count)) {
      throw new EOFException("the peer ended the stream in the middle of a message");
    }
  }

  /**
   * Fills another buffer from its position to its limit.
   *
   * @throws EOFException if the peer ended the stream before
   */
  public void readFully(ByteBuffer into) throws IOException {
    while (into.hasRemaining()) {
      readSome(into);
    }
  }

  /**
   * Fills a part of another buffer, which has room.
   *
   * @return how many bytes came, at least one
   * @throws EOFException if the peer ended the stream before
   */
  public int readSome(ByteBuffer into) throws IOException {
    int ready = Math.min(buffer.remaining(), into.remaining());
    if (ready > 0) {
      into.put(into.position(), buffer, buffer.position(), ready);
      into.position(into.position() + ready);
      buffer.position(buffer.position() + ready);
      afterLongPayload = into.remaining() > buffer.capacity();
      return ready;
    }
    afterLongPayload |= into.remaining() > buffer.capacity();
    int read = channel.read(into);
    if (read < 0) {
      throw new EOFException("the peer ended the stream in the middle of a message");
    }
    return read;
  }

  /**
   * Drops so many bytes.
   *
   * @throws EOFException if the peer ended the stream before
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
