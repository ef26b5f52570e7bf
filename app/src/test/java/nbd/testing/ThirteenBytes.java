package nbd.testing;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;

/** A channel that moves at most 13 bytes a call, as a slow socket may. */
public final class ThirteenBytes implements ByteChannel {
  private static final int MOST = 13;

  private final ByteBuffer toRead;
  private final ByteArrayOutputStream written = new ByteArrayOutputStream();
  private final Pace pace;
  private volatile boolean closed;

  /** Makes a channel that gives these bytes, then the end of the stream. */
  public ThirteenBytes(byte... toRead) {
    this(left -> left, toRead);
  }

  /** Makes a channel that moves pieces of this pace, never more than 13 bytes. */
  public ThirteenBytes(Pace pace, byte... toRead) {
    this.toRead = ByteBuffer.wrap(toRead);
    this.pace = pace;
  }

  @Override
  public int read(ByteBuffer into) {
    if (!toRead.hasRemaining()) {
      return -1;
    }
    int count = piece(Math.min(into.remaining(), toRead.remaining()));
    into.put(toRead.slice(toRead.position(), count));
    toRead.position(toRead.position() + count);
    return count;
  }

  @Override
  @SuppressWarnings("ThreadPriorityCheck") // so that threads that write at a time take turns
  public int write(ByteBuffer from) {
    int count = piece(from.remaining());
    synchronized (this) {
      for (int i = 0; i < count; i++) {
        written.write(from.get());
      }
    }
    Thread.yield();
    return count;
  }

  private int piece(int possible) {
    return possible == 0 ? 0 : Math.min(MOST, pace.next(possible));
  }

  /** Returns everything that was written. */
  public synchronized byte[] written() {
    return written.toByteArray();
  }

  @Override
  public boolean isOpen() {
    return !closed;
  }

  /** Says whether it was closed; reads and writes work all the same. */
  public boolean isClosed() {
    return closed;
  }

  @Override
  public void close() {
    closed = true;
  }
}
