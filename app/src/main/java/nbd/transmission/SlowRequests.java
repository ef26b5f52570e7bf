package nbd.transmission;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.ErrorReply;
import nbd.protocol.NbdError;
import nbd.protocol.ReplyFormat;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.transmission.Admission.Place;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The requests of one connection that cannot be served at once. Each has a virtual thread of its
 * own, which sends the reply when it is done; or the handle begins it and tells the end, and the
 * reply leaves with those that are there then. The connection's own thread starts them.
 */
final class SlowRequests {
  private final String peer;
  private final Handle handle;
  private final Replies replies;
  private final ReplyFormat format;
  private final BlockStatus blockStatus;
  private final SparseReads sparseReads;
  private final EndedRequests ended;

  /** What has not started when the peer is gone must not: its client may have sent it elsewhere. */
  private volatile boolean abandoned;

  SlowRequests(String peer, Handle handle, Replies replies, ReplyFormat format) {
    this.peer = peer;
    this.handle = handle;
    this.replies = replies;
    this.format = format;
    this.blockStatus = new BlockStatus(handle, format);
    this.sparseReads = new SparseReads(handle, format);
    this.ended = new EndedRequests(replies, this::unsent);
  }

  /**
   * A request.
   *
   * @param place left when it is done; its buffer holds a WRITE's payload from its position to its
   *     limit, or is for a reply with content, unless there was no memory for that
   */
  record Slow(
      Command command, CommandFlags flags, long cookie, long offset, long length, Place place) {
    private ByteBuffer buffer() {
      return place.buffer().orElseThrow();
    }
  }

  /** Whether a READ of so many bytes gains nothing by coming here, where holes are looked for. */
  boolean isPlain(int length) {
    return sparseReads.isPlain(length);
  }

  /** The bytes that a request's reply may need. */
  int replyBytes(Command command, CommandFlags flags, long length) {
    return switch (command) {
      case READ -> format.dataHeaderBytes() + (int) length;
      case BLOCK_STATUS -> blockStatus.replyBytes(flags);
      default -> 0;
    };
  }

  /** Starts a request; its place is left when it is done. */
  void start(Slow request) {
    boolean started = false;
    try {
      boolean begun =
          switch (request.command()) {
            case READ -> beginRead(request);
            case WRITE -> beginWrite(request);
            default -> false;
          };
      if (!begun) {
        Thread.ofVirtual().start(() -> run(request));
      }
      started = true;
    } finally {
      if (!started) {
        // It is not known what the handle has begun, and whether it will tell the end.
        request.place().abandon();
      }
    }
  }

  private boolean beginRead(Slow request) {
    int length = (int) request.length();
    if (request.place().buffer().isEmpty() || !sparseReads.isPlain(length)) {
      return false;
    }
    ByteBuffer reply = request.buffer();
    int header = format.dataHeaderBytes();
    return handle.beginRead(
        reply.slice(header, length),
        request.offset(),
        failure ->
            ended.add(
                request, () -> failure == null ? data(request) : failedRead(request, failure)));
  }

  private ByteBuffer data(Slow request) {
    ByteBuffer reply = request.buffer();
    long offset = request.offset();
    int end = reply.limit();
    format.data(reply, request.cookie(), offset, offset, (int) request.length(), true);
    return reply.position(end).flip();
  }

  private ByteBuffer failedRead(Slow request, IOException failure) {
    ErrorReply error = logFailure(Command.READ, request.offset(), request.length(), failure);
    return failedRead(request, error, request.offset());
  }

  private boolean beginWrite(Slow request) {
    return handle.beginWrite(
        request.buffer().duplicate(),
        request.offset(),
        request.flags(),
        failure -> ended.add(request, () -> written(request, failure)));
  }

  private ByteBuffer written(Slow request, @Nullable IOException failure) {
    ErrorReply error =
        failure == null
            ? ErrorReply.NONE
            : logFailure(Command.WRITE, request.offset(), request.length(), failure);
    // The payload is not needed any more.
    return plain(request.buffer().clear(), request, error);
  }

  /** Lets no request begin any more; those that have begun end as they can. */
  void abandon() {
    abandoned = true;
  }

  private void run(Slow request) {
    try {
      if (!abandoned) {
        serve(request);
      }
    } catch (IOException | RuntimeException | Error unsent) {
      unsent(unsent);
    } finally {
      request.place().leave();
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

  private void serve(Slow request) throws IOException {
    switch (request.command()) {
      case READ -> {
        if (request.place().buffer().isEmpty()) {
          new PieceByPiece(request).send();
        } else {
          replies.send(read(request));
        }
      }
      case BLOCK_STATUS -> replies.send(status(request));
      default -> {
        ErrorReply error = perform(request);
        // What waits for a client that takes no replies needs no payload any more.
        request.place().releaseBuffer();
        replies.send(plain(request, error));
      }
    }
  }

  private ErrorReply perform(Slow request) {
    long offset = request.offset();
    long length = request.length();
    try {
      switch (request.command()) {
        case WRITE -> handle.write(request.buffer(), offset, request.flags());
        case FLUSH -> handle.flush();
        case TRIM -> handle.trim(offset, length, request.flags());
        case WRITE_ZEROES -> handle.zero(offset, length, request.flags());
        case CACHE -> handle.cache(offset, length);
        case READ, BLOCK_STATUS, DISC, RESIZE -> throw new AssertionError(request.command());
      }
      return ErrorReply.NONE;
    } catch (IOException failure) {
      return logFailure(request.command(), offset, length, failure);
    } catch (RuntimeException | Error failure) {
      return logMistake(request.command(), failure);
    }
  }

  private ByteBuffer plain(Slow request, ErrorReply error) {
    return plain(ByteBuffer.allocate(ReplyFormat.MAXIMUM_BYTES), request, error);
  }

  private ByteBuffer plain(ByteBuffer reply, Slow request, ErrorReply error) {
    if (error.isError()) {
      format.error(reply, request.cookie(), request.offset(), error);
    } else {
      format.success(reply, request.cookie(), request.offset());
    }
    return reply.flip();
  }

  private ByteBuffer status(Slow request) {
    ByteBuffer reply = request.buffer();
    long offset = request.offset();
    try {
      blockStatus.answer(reply, request.cookie(), offset, request.length(), request.flags());
      return reply.flip();
    } catch (IOException failure) {
      return plain(request, logFailure(Command.BLOCK_STATUS, offset, request.length(), failure));
    } catch (RuntimeException | Error failure) {
      return plain(request, logMistake(Command.BLOCK_STATUS, failure));
    }
  }

  /** Reads everything, and gives the reply. */
  private ByteBuffer read(Slow request) {
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
    } catch (IOException failure) {
      return failedRead(
          request, logFailure(Command.READ, request.offset(), request.length(), failure), at);
    } catch (RuntimeException | Error failure) {
      return failedRead(request, logMistake(Command.READ, failure), at);
    }
  }

  private ByteBuffer failedRead(Slow request, ErrorReply error, long at) {
    ByteBuffer reply = ByteBuffer.allocate(ReplyFormat.MAXIMUM_BYTES);
    format.errorAt(reply, request.cookie(), request.offset(), error, at);
    return reply.flip();
  }

  /**
   * A READ for which there was no memory: what is read goes to the client before the next piece is
   * read, through the one small buffer of whoever is sending on this connection.
   */
  private final class PieceByPiece {
    private final Slow request;
    private ErrorReply early = ErrorReply.NONE;

    PieceByPiece(Slow request) {
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
        replies.send(failedRead(request, logCut(offset, length, cut), offset + cut.sent()));
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
      } catch (IOException failure) {
        early = logFailure(Command.READ, at, request.length(), failure);
        return false;
      } catch (RuntimeException | Error failure) {
        early = logMistake(Command.READ, failure);
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

  /** Logs that the data of a READ stopped in the middle, and gives what the client is told. */
  ErrorReply logCut(long offset, long length, CutShortException cut) {
    return cut.getCause() instanceof IOException failure
        ? logFailure(Command.READ, offset, length, failure)
        : logMistake(Command.READ, cut);
  }

  /** Logs that the storage failed, and gives what the client is told. */
  ErrorReply logFailure(Command command, long offset, long length, IOException failure) {
    ErrorReply reply = ErrorReply.of(failure);
    Logger.error(
        failure,
        "{}: {} of {} bytes at {} failed with {}: {}",
        peer,
        command,
        length,
        offset,
        reply.error(),
        failure.getMessage());
    return reply;
  }

  /** Logs that a call failed in a way that it must not, and gives what the client is told. */
  ErrorReply logMistake(Command command, Throwable failure) {
    Logger.error(failure, "{}: {} failed by a mistake in the server: {}", peer, command, failure);
    return new ErrorReply(NbdError.EIO, "a mistake in the server, which its log describes");
  }
}
