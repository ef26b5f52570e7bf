package nbd.server;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import nbd.backend.Handle;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.ProtocolException;
import nbd.protocol.RequestHeader;
import nbd.protocol.SimpleReply;
import nbd.protocol.WireInput;
import nbd.server.SlowRequests.Memory;
import nbd.server.SlowRequests.Slow;
import org.tinylog.Logger;

/**
 * The transmission phase of one connection, run by its virtual thread.
 *
 * <p>A request takes one of two ways. What the handle can do at once, without waiting for storage
 * (its {@code ...Now} calls), is done by this thread, and the reply is collected with its
 * neighbours': requests that arrived together leave together, without a lock and without an
 * allocation. Everything else (a read that is not cached, a flush, a trim, a write while the kernel
 * throttles) gets a virtual thread of its own, so that what comes after it, here and on other
 * connections, does not wait.
 *
 * <p>The reason is measured (4 KiB cached reads, 4 connections x depth 8, two cores): a virtual
 * thread for every request reaches 0.6 of the throughput of doing it at once; but blocking calls
 * made at once would stop all connections as soon as two of them wait for a disk.
 */
final class Transmission {
  /** Oversize writes up to this length are read and dropped, and answered. */
  private static final long DRAINED_WRITE = 128L << 20;

  private final String peer;
  private final WireInput in;
  private final Handle handle;
  private final RequestCheck check;
  private final ReplyBatch batch;
  private final SlowRequests slow;
  private final RequestHeader request = new RequestHeader();

  Transmission(
      String peer,
      WireInput in,
      Replies replies,
      OpenExport export,
      BufferPool buffers,
      MemoryBudget budget,
      Turn turn) {
    this.peer = peer;
    this.in = in;
    this.handle = export.handle();
    this.check = new RequestCheck(handle, export.advertised());
    this.batch = new ReplyBatch(replies, buffers, turn);
    this.slow = new SlowRequests(peer, handle, replies, buffers, budget);
  }

  /**
   * Serves until the client disconnects; returns when no request is running any more.
   *
   * @param stopping whether the end of the input means that the server stops, not that the client
   *     is gone
   * @throws IOException why the connection cannot go on
   */
  void run(BooleanSupplier stopping) throws IOException {
    boolean orderly = false;
    try {
      orderly = serve() || stopping.getAsBoolean();
      batch.send();
    } finally {
      if (!orderly) {
        slow.abandon();
      }
      batch.discard();
      slow.awaitNone();
    }
  }

  /** Serves what arrives; true if the client said goodbye, false if its stream just ended. */
  private boolean serve() throws IOException {
    while (next()) {
      Optional<Command> known = Command.of(request.type());
      if (known.isEmpty()) {
        refuse(NbdError.EINVAL, "unknown command " + request.type());
      } else if (known.get() == Command.DISC) {
        return true;
      } else {
        serve(known.get());
      }
    }
    return false;
  }

  /** Waits for the next request; false at the end of the stream. */
  private boolean next() throws IOException {
    if (in.buffered() < RequestHeader.BYTES) {
      batch.send();
      if (!in.fill(RequestHeader.BYTES)) {
        if (in.buffered() > 0) {
          throw new ProtocolException("the stream ended in the middle of a request");
        }
        return false;
      }
    }
    request.readFrom(in.buffer());
    return true;
  }

  private void serve(Command command) throws IOException {
    NbdError error = check.check(command, request);
    if (error != NbdError.NONE) {
      refuse(command, error);
      return;
    }
    if (request.length() == 0 && command != Command.FLUSH) {
      batch.add(NbdError.NONE, request.cookie());
      return;
    }
    CommandFlags flags = CommandFlags.of(request.flags());
    try {
      switch (command) {
        case READ -> read();
        case WRITE -> write(flags);
        default -> start(command, flags, 0);
      }
    } catch (NbdException noMemory) {
      refuse(command, noMemory.error());
    }
  }

  private void refuse(Command command, NbdError error) throws IOException {
    if (command == Command.WRITE) {
      if (request.length() > DRAINED_WRITE) {
        throw new ProtocolException("a write of " + request.length() + " bytes");
      }
      sendBeforeWaitingFor(request.length());
      in.skip(request.length());
    }
    refuse(error, command.name());
  }

  private void refuse(NbdError error, String what) throws IOException {
    Logger.debug(
        "{}: {} of {} bytes at {} with flags {} is refused: {}",
        peer,
        what,
        request.length(),
        Long.toUnsignedString(request.offset()),
        request.flags(),
        error);
    batch.add(error, request.cookie());
  }

  private void read() throws IOException {
    int length = (int) request.length();
    boolean done =
        length <= ReplyBatch.LONGEST_READ
            ? readNow(length, request.offset())
            : batch.sendWith(handle, request.offset(), length, request.cookie());
    if (!done) {
      start(Command.READ, CommandFlags.NONE, SimpleReply.BYTES + length);
    }
  }

  /** Reads into the batch if the handle can; false if nothing has happened. */
  private boolean readNow(int length, long offset) throws IOException {
    ByteBuffer replies = batch.room(SimpleReply.BYTES + length);
    int start = replies.position();
    int end = start + SimpleReply.BYTES + length;
    NbdError error = NbdError.NONE;
    boolean done;
    try {
      done = handle.readNow(replies.limit(end).position(start + SimpleReply.BYTES), offset);
    } catch (IOException failure) {
      done = true;
      error = slow.logFailure(Command.READ, offset, length, failure);
    } catch (RuntimeException mistake) {
      done = true;
      error = slow.logMistake(Command.READ, mistake);
    }
    replies.clear().position(start);
    if (done) {
      SimpleReply.write(replies, error, request.cookie());
      if (error == NbdError.NONE) {
        replies.position(end);
      }
    }
    return done;
  }

  private void write(CommandFlags flags) throws IOException {
    int length = (int) request.length();
    sendBeforeWaitingFor(length);
    if (length <= in.capacity()) {
      in.require(length);
      if (writeBuffered(flags, length)) {
        return;
      }
    }
    Memory memory = slow.take(length, batch);
    boolean handedOn = false;
    try {
      // Nothing is written before all of it is here: who is gone may send it again elsewhere.
      in.readFully(memory.buffer());
      memory.buffer().flip();
      if (!writeNow(memory.buffer(), flags)) {
        handedOn = true;
        slow.start(
            new Slow(Command.WRITE, flags, request.cookie(), request.offset(), length, memory));
      }
    } finally {
      if (!handedOn) {
        slow.giveBack(memory);
      }
    }
  }

  /** Writes from the input's buffer; false if nothing has happened, and the payload is there. */
  private boolean writeBuffered(CommandFlags flags, int length) throws IOException {
    ByteBuffer buffered = in.buffer();
    int start = buffered.position();
    int end = buffered.limit();
    boolean done = false;
    try {
      done = writeNow(buffered.limit(start + length), flags);
    } finally {
      buffered.limit(end).position(done ? start + length : start);
    }
    return done;
  }

  /** Writes at once if the handle can, and collects the reply; false if nothing has happened. */
  private boolean writeNow(ByteBuffer data, CommandFlags flags) throws IOException {
    if (!flags.equals(CommandFlags.NONE)) {
      return false;
    }
    NbdError error = NbdError.NONE;
    int length = data.remaining();
    try {
      if (!handle.writeNow(data, request.offset())) {
        return false;
      }
    } catch (IOException failure) {
      error = slow.logFailure(Command.WRITE, request.offset(), length, failure);
    } catch (RuntimeException mistake) {
      error = slow.logMistake(Command.WRITE, mistake);
    }
    batch.add(error, request.cookie());
    return true;
  }

  /** The client may be waiting for replies before it sends the rest of a payload. */
  private void sendBeforeWaitingFor(long bytes) throws IOException {
    if (in.buffered() < bytes) {
      batch.send();
    }
  }

  /** Hands the current request to a thread of its own, with so much memory. */
  private void start(Command command, CommandFlags flags, int bytes) throws IOException {
    Memory memory = slow.take(bytes, batch);
    slow.start(
        new Slow(command, flags, request.cookie(), request.offset(), request.length(), memory));
  }
}
