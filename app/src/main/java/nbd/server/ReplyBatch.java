package nbd.server;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Optional;
import nbd.backend.Handle;
import nbd.protocol.NbdError;
import nbd.protocol.SimpleReply;

/**
 * Replies that the connection's own thread collects, so that those of requests that arrived
 * together leave by one system call. The buffer is borrowed while there are some. Used by one
 * thread.
 */
final class ReplyBatch {
  /** The longest READ whose data is collected. */
  static final int LONGEST_READ = 1 << 16;

  /** Two of the longest reads, or 32 of 4 KiB. */
  private static final int BYTES = 2 * (LONGEST_READ + (1 << 12));

  private final Replies replies;
  private final BufferPool buffers;
  private final Turn turn;
  private Optional<ByteBuffer> borrowed = Optional.empty();

  ReplyBatch(Replies replies, BufferPool buffers, Turn turn) {
    this.replies = replies;
    this.buffers = buffers;
    this.turn = turn;
  }

  /**
   * The collected replies, with room for so many bytes behind them, at most {@link #LONGEST_READ}
   * and a header; sends what is collected if it has to.
   */
  ByteBuffer room(int bytes) throws IOException {
    if (borrowed.isPresent() && borrowed.get().remaining() < bytes) {
      send();
    }
    if (borrowed.isEmpty()) {
      ByteBuffer buffer = buffers.take(BYTES);
      borrowed = Optional.of(buffer.limit(buffer.capacity()));
    }
    return borrowed.get();
  }

  /** Collects a reply without data. */
  void add(NbdError error, long cookie) throws IOException {
    SimpleReply.write(room(SimpleReply.BYTES), error, cookie);
  }

  /**
   * Sends everything, and a READ's reply whose data comes straight from the handle.
   *
   * @return whether the handle could; if not, nothing was sent
   */
  boolean sendWith(Handle handle, long offset, long length, long cookie) throws IOException {
    ByteBuffer buffer = room(SimpleReply.BYTES);
    int before = buffer.position();
    SimpleReply.write(buffer, NbdError.NONE, cookie);
    boolean sent = replies.sendFrom(handle, offset, length, buffer.flip());
    buffer.clear();
    if (sent) {
      turn.check();
    } else {
      buffer.position(before);
    }
    return sent;
  }

  /** Sends everything. */
  void send() throws IOException {
    if (borrowed.isEmpty()) {
      return;
    }
    try {
      if (borrowed.get().position() > 0) {
        replies.send(borrowed.get().flip());
      }
    } finally {
      discard();
    }
    turn.check();
  }

  /** Drops what has not been sent. */
  void discard() {
    borrowed.ifPresent(buffers::giveBack);
    borrowed = Optional.empty();
  }
}
