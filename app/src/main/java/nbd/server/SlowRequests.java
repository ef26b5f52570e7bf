package nbd.server;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.backend.Handle;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.SimpleReply;
import org.tinylog.Logger;

/**
 * The requests of one connection that cannot be served at once: each has a virtual thread of its
 * own, which sends the reply when it is done. The connection's own thread starts them.
 */
final class SlowRequests {
  private final String peer;
  private final Handle handle;
  private final Replies replies;
  private final BufferPool buffers;
  private final MemoryBudget budget;
  private final InFlight inFlight = new InFlight();

  /** What has not started when the peer is gone must not: its client may have sent it elsewhere. */
  private volatile boolean abandoned;

  SlowRequests(
      String peer, Handle handle, Replies replies, BufferPool buffers, MemoryBudget budget) {
    this.peer = peer;
    this.handle = handle;
    this.replies = replies;
    this.buffers = buffers;
    this.budget = budget;
  }

  /**
   * A request, and the memory that it holds until it is done: a WRITE's payload from its position
   * to its limit, room for a READ's reply, else nothing.
   */
  record Slow(
      Command command, CommandFlags flags, long cookie, long offset, long length, Memory memory) {}

  /**
   * Memory that is counted.
   *
   * @param buffer with so many bytes
   * @param bytes as they were asked for
   */
  record Memory(ByteBuffer buffer, int bytes) {
    static final Memory NONE = new Memory(ByteBuffer.allocate(0), 0);
  }

  /**
   * Takes a place among the requests in flight, with so much memory.
   *
   * @param batch sent before this waits, so that the client gets what is ready
   * @throws NbdException ENOMEM if the JVM has no more; nothing is taken then
   */
  Memory take(int bytes, ReplyBatch batch) throws IOException {
    if (!inFlight.tryEnter(bytes)) {
      batch.send();
      inFlight.enter(bytes);
    }
    if (bytes == 0) {
      return Memory.NONE;
    }
    boolean taken = false;
    try {
      if (!budget.tryTake(bytes)) {
        batch.send();
        budget.take(bytes);
      }
      taken = true;
      return new Memory(buffers.take(bytes), bytes);
    } catch (OutOfMemoryError | IOException failure) {
      if (taken) {
        budget.giveBack(bytes);
      }
      inFlight.leave(bytes);
      if (failure instanceof IOException unsent) {
        throw unsent;
      }
      throw new NbdException(NbdError.ENOMEM, "no memory is left for a request");
    }
  }

  /** Gives a place and its memory back. */
  void giveBack(Memory memory) {
    if (memory.bytes() > 0) {
      buffers.giveBack(memory.buffer());
      budget.giveBack(memory.bytes());
    }
    inFlight.leave(memory.bytes());
  }

  /** Starts a request; its place and memory are given back when it is done. */
  void start(Slow request) {
    Thread.ofVirtual().start(() -> run(request));
  }

  /** Lets no request begin any more; those that have begun end as they can. */
  void abandon() {
    abandoned = true;
  }

  /** Waits until all requests that were started are done. */
  void awaitNone() {
    inFlight.awaitNone();
  }

  private void run(Slow request) {
    try {
      if (!abandoned) {
        replies.send(reply(request));
      }
    } catch (IOException unsent) {
      abandoned = true;
      Logger.debug("{}: a reply could not be sent: {}", peer, unsent.getMessage());
    } finally {
      giveBack(request.memory());
    }
  }

  /** Does what the request asks for, and says how it went. */
  private ByteBuffer reply(Slow request) {
    NbdError error = NbdError.NONE;
    try {
      perform(request);
    } catch (IOException failure) {
      error = logFailure(request.command(), request.offset(), request.length(), failure);
    } catch (RuntimeException | Error failure) {
      error = logMistake(request.command(), failure);
    }
    boolean withData = request.command() == Command.READ && error == NbdError.NONE;
    ByteBuffer reply =
        withData ? request.memory().buffer().rewind() : ByteBuffer.allocate(SimpleReply.BYTES);
    SimpleReply.write(reply, error, request.cookie());
    return reply.rewind();
  }

  private void perform(Slow request) throws IOException {
    ByteBuffer buffer = request.memory().buffer();
    long offset = request.offset();
    switch (request.command()) {
      case READ -> handle.read(buffer.position(SimpleReply.BYTES), offset);
      case WRITE -> write(buffer, offset, request.flags());
      case FLUSH -> handle.flush();
      case TRIM -> handle.trim(offset, request.length(), request.flags());
      case WRITE_ZEROES -> handle.zero(offset, request.length(), request.flags());
      case CACHE -> handle.cache(offset, request.length());
      case DISC, BLOCK_STATUS, RESIZE -> throw new AssertionError(request.command());
    }
  }

  private void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    if (!flags.equals(CommandFlags.NONE) || !handle.writeNow(from, offset)) {
      handle.write(from, offset, flags);
    }
  }

  /** Logs that the storage failed, and gives the error that the client is told. */
  NbdError logFailure(Command command, long offset, long length, IOException failure) {
    NbdError error = NbdException.errorOf(failure);
    Logger.error(
        "{}: {} of {} bytes at {} failed with {}: {}",
        peer,
        command,
        length,
        offset,
        error,
        failure.getMessage());
    Logger.debug(failure);
    return error;
  }

  /** Logs that a call failed in a way that it must not, and gives the error. */
  NbdError logMistake(Command command, Throwable failure) {
    Logger.error("{}: {} failed by a mistake in the server: {}", peer, command, failure);
    Logger.debug(failure);
    return NbdError.EIO;
  }
}
