package nbd.client;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import nbd.posix.Pipe;
import nbd.posix.SpliceSocket;
import nbd.protocol.ChunkType;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.IncomingReply;
import nbd.protocol.ProtocolException;
import nbd.protocol.WireInput;
import nbd.threads.Postponed;
import org.tinylog.Logger;

/**
 * The task of the one thread of a connection that reads: checks the server's replies, and fills the
 * buffers of the requests.
 */
final class ReplyReader implements Runnable {
  private static final int MOST_ERROR_BYTES = 1 << 16;
  private static final int OFFSET_BYTES = 8;
  private static final int HOLE_BYTES = 12;
  private static final int ERROR_BYTES = 6;

  private final Link link;
  private final Wire wire;
  private final WireInput in;
  private final ExportInfo export;
  private final IncomingReply reply = new IncomingReply();

  ReplyReader(Link link, Wire wire, WireInput in, ExportInfo export) {
    this.link = link;
    this.wire = wire;
    this.in = in;
    this.export = export;
  }

  @Override
  public void run() {
    try (Postponed ends = Postponed.begin()) {
      wire.beforeWaiting(ends::run);
      while (reply.read(in)) {
        take();
      }
      link.ended();
    } catch (IOException failure) {
      link.fail(failure);
    } catch (RuntimeException | Error mistake) {
      link.giveUp("a reply could not be processed", mistake);
      Logger.error(mistake, "{}: a reply could not be processed", link.name());
    } finally {
      link.loseAll();
    }
  }

  private void take() throws IOException {
    Request request = link.find(reply.cookie());
    switch (reply.form()) {
      case SIMPLE -> takeSimple(request);
      case CHUNK -> {
        if (export.extendedHeaders() || !export.structuredReplies()) {
          throw wrong(request, "by a chunk, which was not agreed upon");
        }
        takeChunk(request);
      }
      case EXTENDED -> {
        if (!export.extendedHeaders()) {
          throw wrong(request, "with an extended header, which was not agreed upon");
        }
        if (reply.offset() != request.offset) {
          throw wrong(request, "for offset %s".formatted(Long.toUnsignedString(reply.offset())));
        }
        takeChunk(request);
      }
    }
  }

  private ProtocolException wrong(Request request, String how) {
    return new ProtocolException(
        "the server answered %s of %d bytes at %d %s"
            .formatted(request.command, request.length, request.offset, how));
  }

  private void takeSimple(Request request) throws IOException {
    if (export.extendedHeaders()
        || (export.structuredReplies() && request.command == Command.READ)) {
      throw wrong(request, "by a simple reply, where chunks were agreed upon");
    }
    if (request.chunked) {
      throw wrong(request, "by a simple reply after chunks");
    }
    if (reply.error() != 0) {
      request.fail(reply.error(), "");
    } else if (request.command == Command.READ) {
      receive(request, 0, request.length);
    } else if (request.command == Command.BLOCK_STATUS) {
      throw wrong(request, "without extents");
    }
    answer(request);
  }

  private void answer(Request request) throws IOException {
    request.returnToPipe();
    link.answer(request);
  }

  private void takeChunk(Request request) throws IOException {
    request.chunked = true;
    switch (ChunkType.of(reply.type()).orElse(null)) {
      case NONE -> {
        if (reply.length() != 0 || !reply.isDone()) {
          throw wrong(request, "by an empty chunk that has data or is not the last");
        }
      }
      case OFFSET_DATA -> takeData(request);
      case OFFSET_HOLE -> takeHole(request);
      case BLOCK_STATUS -> takeExtents(request, false);
      case BLOCK_STATUS_EXT -> takeExtents(request, true);
      case ERROR, ERROR_OFFSET -> takeError(request);
      case null -> {
        if (!ChunkType.isError(reply.type())) {
          throw wrong(request, "by a chunk of the unknown type %d".formatted(reply.type()));
        }
        takeError(request);
      }
    }
    if (reply.isDone()) {
      checkComplete(request);
      answer(request);
    }
  }

  private void takeData(Request request) throws IOException {
    requireRead(request);
    if (reply.length() <= OFFSET_BYTES) {
      throw wrong(request, "by data of %d bytes".formatted(reply.length() - OFFSET_BYTES));
    }
    in.require(OFFSET_BYTES);
    long start = in.buffer().getLong() - request.offset;
    long bytes = reply.length() - OFFSET_BYTES;
    cover(request, start, bytes);
    receive(request, start, bytes);
  }

  /** Receives a piece of a READ's data. */
  private void receive(Request request, long start, long bytes) throws IOException {
    long done = 0;
    Pipe pipe = request.pipe();
    if (pipe != null) {
      done = pipe.held() == start ? fill(pipe, bytes) : 0;
      if (done < bytes) {
        request.leavePipe(pipe);
      }
    }
    if (done < bytes) {
      in.readFully(request.part(start + done, bytes - done));
    }
  }

  /** Moves a piece to a pipe; returns the number of bytes that it had room for. */
  private long fill(Pipe pipe, long bytes) throws IOException {
    SpliceSocket socket = wire.spliced().orElseThrow();
    long done = 0;
    long moved = 1;
    while (done < bytes && moved > 0) {
      moved = in.moveSome(socket, pipe, bytes - done);
      done += moved;
    }
    return done;
  }

  private void takeHole(Request request) throws IOException {
    requireRead(request);
    if (reply.length() != HOLE_BYTES) {
      throw wrong(request, "by a hole described in %d bytes".formatted(reply.length()));
    }
    in.require(HOLE_BYTES);
    ByteBuffer buffer = in.buffer();
    long start = buffer.getLong() - request.offset;
    long bytes = Integer.toUnsignedLong(buffer.getInt());
    if (bytes == 0) {
      throw wrong(request, "by a hole of no bytes");
    }
    cover(request, start, bytes);
    Pipe pipe = request.pipe();
    if (pipe != null) {
      request.leavePipe(pipe);
    }
    MemorySegment.ofBuffer(request.part(start, bytes)).fill((byte) 0);
  }

  private void requireRead(Request request) throws ProtocolException {
    if (request.command != Command.READ) {
      throw wrong(request, "by data");
    }
  }

  /** Checks that a piece lies in the request and has not come before. {@code bytes} is positive. */
  private void cover(Request request, long start, long bytes) throws ProtocolException {
    if (start < 0 || start > request.length || bytes > request.length - start) {
      throw wrong(
          request,
          "by %d bytes at %s, which lie outside of it"
              .formatted(bytes, Long.toUnsignedString(request.offset + start)));
    }
    if ((request.flags & CommandFlag.DF.bit()) != 0 && !request.coverage().isEmpty()) {
      throw wrong(request, "in several pieces, where it was asked for one (DF)");
    }
    if (!request.coverage().add(start, start + bytes)) {
      throw wrong(
          request,
          "by %d bytes at %d, some of which it had sent before"
              .formatted(bytes, request.offset + start));
    }
  }

  private void takeExtents(Request request, boolean wide) throws IOException {
    ExtentList extents = request.extents;
    if (extents == null || wide != export.extendedHeaders()) {
      throw wrong(request, "by extents of a form that was not asked for");
    }
    int head = wide ? 8 : 4;
    int each = wide ? 16 : 8;
    long count = (reply.length() - head) / each;
    if (reply.length() < head + each || (reply.length() - head) % each != 0) {
      throw wrong(request, "by extents in %d bytes".formatted(reply.length()));
    }
    in.require(head);
    ByteBuffer buffer = in.buffer();
    int context = buffer.getInt();
    long announced = wide ? Integer.toUnsignedLong(buffer.getInt()) : count;
    if (!export.contexts().containsValue(context) || !extents.begin(context)) {
      throw wrong(
          request,
          "by the metadata context %s, which is unknown or came before"
              .formatted(Integer.toUnsignedString(context)));
    }
    if (announced != count) {
      throw wrong(request, "by %d extents where it announced %d".formatted(count, announced));
    }
    for (long i = 0; i < count; i++) {
      in.require(each);
      buffer = in.buffer();
      long length = wide ? buffer.getLong() : Integer.toUnsignedLong(buffer.getInt());
      long flags = wide ? buffer.getLong() : Integer.toUnsignedLong(buffer.getInt());
      if (length == 0) {
        throw wrong(request, "by an extent of no bytes");
      }
      extents.add(length, flags);
    }
  }

  private void takeError(Request request) throws IOException {
    long bytes = reply.length();
    if (bytes < ERROR_BYTES || bytes > MOST_ERROR_BYTES) {
      throw wrong(request, "by an error in %d bytes".formatted(bytes));
    }
    in.require(ERROR_BYTES);
    int error = in.buffer().getInt();
    int textBytes = Short.toUnsignedInt(in.buffer().getShort());
    long rest = bytes - ERROR_BYTES - textBytes;
    if (rest < 0) {
      throw wrong(request, "by an error whose message is longer than the chunk");
    }
    if (error == 0) {
      throw wrong(request, "by an error of the number 0");
    }
    ByteBuffer text = ByteBuffer.allocate(textBytes);
    in.readFully(text);
    in.skip(rest);
    request.fail(error, OptionExchange.text(text.flip()));
  }

  /** Checks that a successful reply has answered everything. */
  private void checkComplete(Request request) throws ProtocolException {
    if (request.error() != null) {
      return;
    }
    if (request.command == Command.READ && !request.coverage().isComplete(request.length)) {
      throw wrong(request, "without all of the data");
    }
    ExtentList extents = request.extents;
    if (extents != null && extents.isEmpty()) {
      throw wrong(request, "without extents");
    }
  }
}
