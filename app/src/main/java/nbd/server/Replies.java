package nbd.server;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.util.concurrent.locks.ReentrantLock;
import nbd.backend.Handle;
import nbd.backend.ReadTarget;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * Where a connection's replies leave. The connection's own thread sends what it has collected, the
 * threads of slow commands send theirs when they are done.
 *
 * <p>Invariant: who holds the lock writes a whole number of replies, or ends the stream.
 */
final class Replies {
  private static final int PIECE_BYTES = 1 << 16;

  private final WritableByteChannel channel;
  private final BufferPool buffers;
  private final ReentrantLock sending;

  /** Why nothing can be sent any more; guarded by the lock. */
  private boolean broken;

  /**
   * Sends to a channel.
   *
   * @param channel in blocking mode while the lock is held
   * @param sending the lock of those who write to the channel
   */
  Replies(WritableByteChannel channel, ReentrantLock sending, BufferPool buffers) {
    this.channel = channel;
    this.sending = sending;
    this.buffers = buffers;
  }

  /**
   * Sends whole replies.
   *
   * @throws IOException if the peer does not take them; no reply can be sent after that
   */
  void send(ByteBuffer replies) throws IOException {
    sending.lock();
    try {
      write(replies);
    } finally {
      sending.unlock();
    }
  }

  /**
   * Sends whole replies, the last of which is the header of a READ's reply, and the data after it
   * straight from the handle, if the handle can.
   *
   * @return whether it could; if not, nothing was sent
   * @throws IOException if the peer does not take them, or if the data could not be read, which the
   *     reply can no longer say
   */
  boolean sendFrom(Handle handle, long offset, long length, ByteBuffer repliesAndHeader)
      throws IOException {
    sending.lock();
    try (Target target = new Target(repliesAndHeader)) {
      boolean sent = transfer(handle, offset, length, target);
      if (sent) {
        broken = false;
      }
      return sent;
    } finally {
      sending.unlock();
    }
  }

  private static boolean transfer(Handle handle, long offset, long length, Target target)
      throws IOException {
    try {
      return handle.transferNow(offset, length, target);
    } catch (IOException | RuntimeException failure) {
      if (target.begun) {
        throw failure;
      }
      // Nothing is lost: the ordinary read tells the client what is wrong, if anything is.
      Logger.debug(failure);
      return false;
    }
  }

  /** Where the handle's data goes; the lock is held. */
  private final class Target implements ReadTarget, AutoCloseable {
    private final ByteBuffer head;
    private boolean begun;
    private @Nullable ByteBuffer piece;

    Target(ByteBuffer head) {
      this.head = head;
    }

    @Override
    public WritableByteChannel begin() throws IOException {
      begun = true;
      write(head);
      broken = true;
      return channel;
    }

    @Override
    public ByteBuffer piece() {
      if (piece == null) {
        piece = buffers.take(PIECE_BYTES);
      }
      return piece;
    }

    @Override
    public void close() {
      if (piece != null) {
        buffers.giveBack(piece);
      }
    }
  }

  private void write(ByteBuffer bytes) throws IOException {
    if (broken) {
      throw new IOException("an earlier reply could not be sent whole");
    }
    broken = true;
    while (bytes.hasRemaining()) {
      channel.write(bytes);
    }
    broken = false;
  }
}
