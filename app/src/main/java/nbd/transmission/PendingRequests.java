package nbd.transmission;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.ErrorReply;
import nbd.protocol.ReplyFormat;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.transmission.Admission.Reservation;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The requests of one connection that could not be answered at once. The handle begins a request,
 * and its reply leaves with those that have ended by then; or the request has a virtual thread of
 * its own, which waits for storage and sends the reply. The connection's thread starts them.
 */
final class PendingRequests {
  private final String peer;
  private final Handle handle;
  private final Replies replies;
  private final ReplyFormat format;
  private final FailureLog failures;
  private final BlockStatus blockStatus;
  private final SparseReads sparseReads;
  private final EndedRequests ended;

  /**
   * Whether the client is gone. Requests that have not started then must not: the client may have
   * sent them elsewhere.
   */
  private volatile boolean abandoned;

  PendingRequests(String peer, Handle handle, Replies replies, ReplyFormat format) {
    this.peer = peer;
    this.handle = handle;
    this.replies = replies;
    this.format = format;
    this.failures = new FailureLog(peer);
    this.blockStatus = new BlockStatus(handle, format);
    this.sparseReads = new SparseReads(handle, format);
    this.ended = new EndedRequests(replies, this::unsent);
  }

  /**
   * A request.
   *
   * @param reservation released when it is answered; its buffer holds a WRITE's payload from its
   *     position to its limit, or is for a reply with content, unless there was no memory for that
   */
  record Pending(
      Command command,
      CommandFlags flags,
      long cookie,
      long offset,
      long length,
      Reservation reservation) {
    private ByteBuffer buffer() {
      return reservation.buffer().orElseThrow();
    }
  }

  /** Says whether a READ of so many bytes gains nothing by coming here to have holes found. */
  boolean isPlain(int length) {
    return sparseReads.isPlain(length);
  }

  /** Returns the bytes that a request's reply may need. */
  int replyBytes(Command command, CommandFlags flags, long length) {
    return switch (command) {
      case READ -> format.dataHeaderBytes() + (int) length;
      case BLOCK_STATUS -> blockStatus.replyBytes(flags);
      default -> 0;
    };
  }

  /** Starts a request; its reservation is released when it is answered. */
  void start(Pending request) {
    boolean started = false;
    try {
      if (!begin(request)) {
        Thread.ofVirtual().start(() -> run(request));
      }
      started = true;
    } finally {
      if (!started) {
        // The handle may have begun it, and may tell its end.
        request.reservation().abandon();
      }
    }
  }

  private boolean begin(Pending request) {
    boolean needsExtents =
        switch (request.command()) {
          case READ ->
              request.reservation().buffer().isEmpty()
                  || !sparseReads.isPlain((int) request.length());
          case BLOCK_STATUS -> true;
          default -> false;
        };
    if (needsExtents) {
      return false;
    }
    try {
      return handle.begin(
          operation(request), failure -> ended.add(request, () -> reply(request, failure)));
    } catch (IOException failure) {
      ended.add(request, () -> reply(request, failure));
      return true;
    }
  }

  private Operation operation(Pending request) {
    long offset = request.offset();
    int length = (int) request.length();
    return switch (request.command()) {
      case READ -> Operation.read(request.buffer().slice(format.dataHeaderBytes(), length), offset);
      case WRITE -> Operation.write(request.buffer().duplicate(), offset, request.flags());
      default -> Operation.onRange(request.command(), offset, request.length(), request.flags());
    };
  }

  /** Makes the reply of a request that the handle began and has ended. */
  private ByteBuffer reply(Pending request, @Nullable IOException failure) {
    ErrorReply error = failure == null ? ErrorReply.NONE : failed(request, failure);
    if (request.command() == Command.READ) {
      return error.isError() ? failedRead(request, error, request.offset()) : data(request);
    }
    // A payload is not needed any more, and its buffer takes the reply where memory is short.
    ByteBuffer reply =
        request.reservation().buffer().map(ByteBuffer::clear).orElseGet(PendingRequests::small);
    return plain(reply, request, error);
  }

  private ByteBuffer data(Pending request) {
    ByteBuffer reply = request.buffer();
    long offset = request.offset();
    int end = reply.limit();
    format.data(reply, request.cookie(), offset, offset, (int) request.length(), true);
    return reply.position(end).flip();
  }

  private ErrorReply failed(Pending request, Throwable failure) {
    return failures.failed(request.command(), request.offset(), request.length(), failure);
  }

  /** Lets no request begin any more; those that have begun end as they can. */
  void abandon() {
    abandoned = true;
  }

  private void run(Pending request) {
    try {
      if (!abandoned) {
        serve(request);
      }
    } catch (IOException | RuntimeException | Error unsent) {
      unsent(unsent);
    } finally {
      request.reservation().release();
    }
  }

  /** Ends the connection: a client must not wait for a reply that does not come. */
  private void unsent(Throwable failure) {
    abandoned = true;
    replies.cut();
    if (failure instanceof IOException) {
      Logger.debug("{}: a reply could not be sent: {}", peer, failure.getMessage());
    } else {
      Logger.error("{}: a reply could not be made: {}", peer, failure);
      Logger.debug(failure);
    }
  }

  private void serve(Pending request) throws IOException {
    switch (request.command()) {
      case READ -> {
        if (request.reservation().buffer().isEmpty()) {
          new PieceByPiece(request).send();
        } else {
          replies.send(read(request));
        }
      }
      case BLOCK_STATUS -> replies.send(status(request));
      default -> {
        ErrorReply error = perform(request);
        // A reply that waits for a client which takes none needs no payload any more.
        request.reservation().releaseBuffer();
        replies.send(plain(small(), request, error));
      }
    }
  }

  private ErrorReply perform(Pending request) {
    try {
      handle.run(operation(request));
      return ErrorReply.NONE;
    } catch (IOException | RuntimeException | Error failure) {
      return failed(request, failure);
    }
  }

  private static ByteBuffer small() {
    return ByteBuffer.allocate(ReplyFormat.MAXIMUM_BYTES);
  }

  private ByteBuffer plain(ByteBuffer reply, Pending request, ErrorReply error) {
    if (error.isError()) {
      format.error(reply, request.cookie(), request.offset(), error);
    } else {
      format.success(reply, request.cookie(), request.offset());
    }
    return reply.flip();
  }

  private ByteBuffer status(Pending request) {
    ByteBuffer reply = request.buffer();
    long offset = request.offset();
    try {
      blockStatus.answer(reply, request.cookie(), offset, request.length(), request.flags());
      return reply.flip();
    } catch (IOException | RuntimeException | Error failure) {
      return plain(small(), request, failed(request, failure));
    }
  }

  /** Reads everything but holes, and gives the reply. */
  private ByteBuffer read(Pending request) {
    ByteBuffer reply = request.buffer();
    int end = reply.limit();
    long at = request.offset();
    long stop = at + request.length();
    try {
      for (Extent part : sparseReads.parts(at, (int) request.length(), request.flags())) {
        int count = (int) part.length();
        boolean last = at + count == stop;
        if (part.zero()) {
          format.hole(reply, request.cookie(), request.offset(), at, count, last);
        } else {
          // The data first: only then it cannot fail any more.
          int start = reply.position();
          int data = start + format.dataHeaderBytes();
          handle.read(reply.position(data).limit(data + count), at);
          reply.limit(end).position(start);
          format.data(reply, request.cookie(), request.offset(), at, count, last);
          reply.position(data + count);
        }
        at += count;
      }
      return reply.flip();
    } catch (IOException | RuntimeException | Error failure) {
      return failedRead(request, failed(request, failure), at);
    }
  }

  private ByteBuffer failedRead(Pending request, ErrorReply error, long at) {
    ByteBuffer reply = small();
    format.errorAt(reply, request.cookie(), request.offset(), error, at);
    return reply.flip();
  }

  /**
   * A READ for which there was no memory: each piece goes to the client before the next one is
   * read, through the one small buffer of the thread that sends on this connection.
   */
  private final class PieceByPiece {
    private final Pending request;
    private ErrorReply early = ErrorReply.NONE;

    PieceByPiece(Pending request) {
      this.request = request;
    }

    void send() throws IOException {
      int length = (int) request.length();
      long offset = request.offset();
      ByteBuffer head = ByteBuffer.allocate(format.dataHeaderBytes());
      format.data(head, request.cookie(), offset, offset, length, false);
      try {
        if (!replies.sendFrom(this::transfer, length, head.flip(), format.hasChunks())) {
          replies.send(failedRead(request, early, offset));
        } else if (format.hasChunks()) {
          ByteBuffer end = ByteBuffer.allocate(format.dataHeaderBytes());
          format.endOfRead(end, request.cookie(), offset);
          replies.send(end.flip());
        }
      } catch (CutShortException cut) {
        replies.send(failedRead(request, failures.cut(offset, length, cut), offset + cut.sent()));
      }
    }

    private boolean transfer(Replies.Target to) throws IOException {
      long at = request.offset();
      long end = at + request.length();
      ByteBuffer piece;
      try {
        piece = to.piece();
        piece.clear().limit((int) Math.min(piece.capacity(), end - at));
        handle.read(piece, at);
      } catch (IOException | RuntimeException | Error failure) {
        early = failed(request, failure);
        return false;
      }
      to.begin();
      while (true) {
        at += piece.flip().remaining();
        to.write(piece);
        if (at == end) {
          return true;
        }
        handle.read(piece.clear().limit((int) Math.min(piece.capacity(), end - at)), at);
      }
    }
  }
}
