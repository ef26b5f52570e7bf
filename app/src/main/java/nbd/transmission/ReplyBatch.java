package nbd.transmission;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Optional;
import nbd.protocol.ErrorReply;
import nbd.protocol.NbdException;
import nbd.protocol.ReplyFormat;
import nbd.protocol.RequestHeader;
import nbd.storage.BufferPool;
import nbd.threads.TimeSlice;

/**
 * The replies that the thread that receives collects, so that those to requests that arrived
 * together leave by one system call. The buffer is borrowed while there are some. Used by one
 * thread at a time.
 *
 * <p>Before it waits for anything, the thread pushes the operations that it has begun to the
 * storage: a flush on another connection may wait for them, and must not wait for this client. So
 * {@link #send} is called before it waits for its client, for memory or for other requests, and
 * pushes before it waits for other threads that send.
 */
final class ReplyBatch {
  /** The longest READ whose data is collected. */
  static final int LONGEST_READ = 1 << 16;

  /** Two of the longest reads, or 32 of 4 KiB. */
  private static final int BYTES = 2 * (LONGEST_READ + (1 << 12));

  /** For replies without data where the JVM has no memory left for more. */
  private static final int FEWEST_BYTES = 1 << 12;

  private final Replies replies;
  private final Runnable push;
  private final ReplyFormat format;
  private final BufferPool buffers;
  private final TimeSlice slice;
  private Optional<ByteBuffer> borrowed = Optional.empty();

  /**
   * Begins empty.
   *
   * @param push sends begun operations to the storage
   */
  ReplyBatch(
      Replies replies, Runnable push, ReplyFormat format, BufferPool buffers, TimeSlice slice) {
    this.replies = replies;
    this.push = push;
    this.format = format;
    this.buffers = buffers;
    this.slice = slice;
  }

  /**
   * Returns the buffer of the collected replies, with room for so many bytes behind them, at most
   * {@link #LONGEST_READ} and a header. Sends the replies if it has to.
   *
   * @throws NbdException ENOMEM if there is no memory for so many; an error always has room
   */
  ByteBuffer room(int bytes) throws IOException {
    if (borrowed.isPresent() && borrowed.get().remaining() < bytes) {
      send();
    }
    if (borrowed.isEmpty()) {
      ByteBuffer buffer = borrow(bytes);
      borrowed = Optional.of(buffer.limit(buffer.capacity()));
    }
    return borrowed.get();
  }

  private ByteBuffer borrow(int bytes) throws NbdException {
    try {
      return buffers.take(BYTES);
    } catch (NbdException noMemory) {
      if (bytes > FEWEST_BYTES) {
        throw noMemory;
      }
      return buffers.takeReserved(FEWEST_BYTES);
    }
  }

  private Replies pushed() {
    push.run();
    return replies;
  }

  /** Returns the length of the header before a READ's data. */
  int dataHeaderBytes() {
    return format.dataHeaderBytes();
  }

  /** Adds the header of a READ whose data already ends at {@code end}. */
  void addRead(RequestHeader request, int end) throws IOException {
    ByteBuffer out = room(0);
    long offset = request.offset();
    format.data(out, request.cookie(), offset, offset, (int) request.length(), true);
    out.position(end);
  }

  /** Collects the success of a command other than READ. */
  void succeed(RequestHeader request) throws IOException {
    format.success(room(format.successBytes()), request.cookie(), request.offset());
  }

  /** Collects the success of a READ of nothing, or the end of one whose data has been sent. */
  void endRead(RequestHeader request) throws IOException {
    format.endOfRead(room(format.dataHeaderBytes()), request.cookie(), request.offset());
  }

  /** Collects an error. */
  void fail(RequestHeader request, ErrorReply error) throws IOException {
    format.error(room(ReplyFormat.MAXIMUM_BYTES), request.cookie(), request.offset(), error);
  }

  /** Collects the error of a READ, and its offset in the export. */
  void failAt(RequestHeader request, ErrorReply error, long at) throws IOException {
    ByteBuffer out = room(ReplyFormat.MAXIMUM_BYTES);
    format.errorAt(out, request.cookie(), request.offset(), error, at);
  }

  /**
   * Sends everything, and a READ's reply whose data comes straight from storage.
   *
   * @return whether the source sent it; if not, nothing was sent, and the read may be tried
   *     otherwise
   * @throws PartialReadException if the source failed in the middle of a chunk
   */
  boolean sendFrom(RequestHeader request, Replies.Source source) throws IOException {
    int length = (int) request.length();
    ByteBuffer buffer = room(format.dataHeaderBytes());
    int before = buffer.position();
    // The storage may still fail in the middle, so this chunk cannot be the last one.
    format.data(buffer, request.cookie(), request.offset(), request.offset(), length, false);
    boolean begun = true;
    try {
      begun = pushed().sendFrom(source, length, buffer.flip(), format.hasChunks());
    } catch (PartialReadException failed) {
      begun = failed.begun();
      if (begun) {
        throw failed;
      }
    } finally {
      buffer.clear().position(begun ? 0 : before);
    }
    if (!begun) {
      return false;
    }
    slice.afterReplies();
    if (format.hasChunks()) {
      endRead(request);
    }
    return true;
  }

  /** Sends everything, and a READ's reply with this data. */
  void sendRead(RequestHeader request, ByteBuffer data) throws IOException {
    long offset = request.offset();
    ByteBuffer head = room(format.dataHeaderBytes());
    format.data(head, request.cookie(), offset, offset, data.remaining(), true);
    pushed().send(new ByteBuffer[] {head.flip(), data});
    head.clear();
    slice.afterReplies();
  }

  /** Sends everything, to the storage and to the client; called before the thread waits. */
  void send() throws IOException {
    Replies out = pushed();
    if (borrowed.isEmpty()) {
      return;
    }
    try {
      if (borrowed.get().position() > 0) {
        out.send(borrowed.get().flip());
      }
    } finally {
      discard();
    }
    slice.afterReplies();
  }

  /** Drops the replies that have not been sent. */
  void discard() {
    borrowed.ifPresent(buffers::giveBack);
    borrowed = Optional.empty();
  }
}
