package nbd.transmission;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import nbd.posix.Pipe;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.ErrorReply;
import nbd.protocol.ReplyFormat;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.threads.WaitingCall;
import nbd.transmission.Admission.Reservation;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The requests of one connection that could not be answered at once. The connection's thread starts
 * them. The handle begins a request, whose reply then leaves with those of others that have ended;
 * or a thread that receives no other request meanwhile waits for storage and sends the reply.
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

  /** True once the client is gone: requests whose threads have not begun them are dropped. */
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
   * @param reservation released when the request is answered. Its buffer holds a WRITE's payload,
   *     from its position to its limit, or is for a reply with content; a READ may have none.
   * @param contexts those that a BLOCK_STATUS asks for
   */
  record Pending(
      Command command,
      CommandFlags flags,
      long cookie,
      long offset,
      long length,
      Reservation reservation,
      Set<MetaContext> contexts) {
    private ByteBuffer buffer() {
      return reservation.buffer().orElseThrow();
    }
  }

  /** Says whether to start a READ here, so that holes are looked for. */
  boolean asksForHoles(int length) {
    return sparseReads.asks(length);
  }

  /** Returns the length of the buffer that a request's reply needs. */
  int replyBytes(Command command, CommandFlags flags, long length, Set<MetaContext> contexts) {
    return switch (command) {
      case READ -> format.dataHeaderBytes() + (int) length;
      case BLOCK_STATUS -> blockStatus.replyBytes(flags, contexts);
      default -> 0;
    };
  }

  /**
   * Starts a request; its reservation is released when it is answered.
   *
   * @param first what the call does before anything else
   * @return the call that waits for storage and answers the request, unless the handle has begun it
   */
  Optional<WaitingCall> start(Pending request, Runnable first, boolean isAlone) {
    boolean started = false;
    try {
      boolean sparse =
          request.command() == Command.READ
              && !isWithoutMemory(request)
              && request.reservation().pipe().isEmpty()
              && sparseReads.asks((int) request.length());
      boolean isBegun = !sparse && begin(request);
      Optional<WaitingCall> call =
          isBegun
              ? Optional.empty()
              : Optional.of(new WaitingCall(() -> run(request, first, sparse), isAlone));
      started = true;
      return call;
    } finally {
      if (!started) {
        // The handle may have begun it, and may report its end.
        request.reservation().abandon();
      }
    }
  }

  private static boolean isWithoutMemory(Pending request) {
    return request.command() == Command.READ && request.reservation().buffer().isEmpty();
  }

  private boolean begin(Pending request) {
    if (request.command() == Command.BLOCK_STATUS || isWithoutMemory(request)) {
      return false;
    }
    try {
      if (beginNow(request)) {
        return true;
      }
      if (request.reservation().pipe().isEmpty()) {
        return false;
      }
      leavePipe(request);
      return beginNow(request);
    } catch (IOException failure) {
      end(request, failure);
      return true;
    }
  }

  private boolean beginNow(Pending request) throws IOException {
    return handle.begin(operation(request), failure -> end(request, failure));
  }

  /** Continues a request with a buffer, since the handle does not begin it with a pipe. */
  private void leavePipe(Pending request) throws IOException {
    boolean reads = request.command() == Command.READ;
    int length = (int) request.length() + (reads ? format.dataHeaderBytes() : 0);
    ByteBuffer buffer = request.reservation().leavePipe(length);
    if (!reads) {
      buffer.flip();
    }
  }

  private Operation operation(Pending request) {
    long offset = request.offset();
    Optional<Pipe> pipe = request.reservation().pipe();
    if (pipe.isPresent()) {
      return request.command() == Command.READ
          ? Operation.read(pipe.get(), offset, request.length())
          : Operation.write(pipe.get(), offset, request.flags());
    }
    int length = (int) request.length();
    return switch (request.command()) {
      case READ -> Operation.read(request.buffer().slice(format.dataHeaderBytes(), length), offset);
      case WRITE -> Operation.write(request.buffer().duplicate(), offset, request.flags());
      default -> Operation.onRange(request.command(), offset, request.length(), request.flags());
    };
  }

  private void end(Pending request, @Nullable IOException failure) {
    ended.add(request.reservation(), () -> reply(request, failure));
  }

  /** Makes the reply to a request that the handle has begun and ended. */
  private ByteBuffer reply(Pending request, @Nullable IOException failure) {
    ErrorReply error = failure == null ? ErrorReply.NONE : failed(request, failure);
    if (request.command() != Command.READ || error.isError()) {
      // Its reply has no data, whatever is in the pipe.
      request.reservation().giveBackPipe();
    }
    if (request.command() == Command.READ) {
      return error.isError() ? failedRead(request, error, request.offset()) : data(request);
    }
    // The payload is not needed any more, and its buffer saves making one for the reply.
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

  /** Lets no other request begin; those that have begun go on. */
  void abandon() {
    abandoned = true;
  }

  private void run(Pending request, Runnable first, boolean sparse) {
    try {
      if (abandoned) {
        return;
      }
      first.run();
      if (isWithoutMemory(request)) {
        sendPieces(request);
      } else {
        replies.send(answer(request, sparse));
      }
    } catch (IOException | RuntimeException | Error unsent) {
      unsent(unsent);
    } finally {
      request.reservation().release();
    }
  }

  /** Ends the connection: its client must not wait for a reply that does not come. */
  private void unsent(Throwable failure) {
    abandoned = true;
    replies.end();
    if (failure instanceof IOException) {
      Logger.debug("{}: a reply could not be sent: {}", peer, failure.getMessage());
    } else {
      Logger.error("{}: a reply could not be made: {}", peer, failure);
      Logger.debug(failure);
    }
  }

  /** Performs a request, and returns its reply. */
  private ByteBuffer answer(Pending request, boolean sparse) {
    return switch (request.command()) {
      case READ -> read(request, sparse);
      case BLOCK_STATUS -> status(request);
      default -> {
        ErrorReply error = perform(request);
        // The client may take long to take the reply, which needs no payload.
        request.reservation().releaseBuffer();
        yield plain(small(), request, error);
      }
    };
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
      blockStatus.answer(
          reply, request.cookie(), offset, request.length(), request.flags(), request.contexts());
      return reply.flip();
    } catch (IOException | RuntimeException | Error failure) {
      return plain(small(), request, failed(request, failure));
    }
  }

  /** Reads everything but holes, and returns the reply. */
  private ByteBuffer read(Pending request, boolean sparse) {
    ByteBuffer reply = request.buffer();
    int end = reply.limit();
    int length = (int) request.length();
    long at = request.offset();
    long stop = at + length;
    try {
      for (Extent part :
          sparse ? sparseReads.parts(at, length, request.flags()) : List.of(Extent.data(length))) {
        int count = (int) part.length();
        boolean last = at + count == stop;
        if (part.zero()) {
          format.hole(reply, request.cookie(), request.offset(), at, count, last);
        } else {
          // The data first: it may fail, and its header says that it has not.
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
   * Reads and sends piece by piece, through the small buffer of the one thread that sends on this
   * connection: each piece goes to the client before the next one is read.
   */
  private void sendPieces(Pending request) throws IOException {
    long offset = request.offset();
    int length = (int) request.length();
    ByteBuffer header = ByteBuffer.allocate(format.dataHeaderBytes());
    format.data(header, request.cookie(), offset, offset, length, false);
    try {
      replies.sendFrom(to -> transfer(request, to), length, header.flip(), format.hasChunks());
    } catch (PartialReadException failure) {
      ErrorReply error = failed(request, failure.reason());
      replies.send(failedRead(request, error, offset + failure.sent()));
      return;
    }
    if (format.hasChunks()) {
      format.endOfRead(header.clear(), request.cookie(), offset);
      replies.send(header.flip());
    }
  }

  private boolean transfer(Pending request, Replies.Target to) throws IOException {
    ByteBuffer piece = to.piece();
    long end = request.offset() + request.length();
    long at = request.offset();
    while (at < end) {
      handle.read(piece.clear().limit((int) Math.min(piece.capacity(), end - at)), at);
      if (at == request.offset()) {
        // Not before: the first read may fail, and a simple reply says that none has.
        to.begin();
      }
      at += piece.flip().remaining();
      to.write(piece);
    }
    return true;
  }
}
