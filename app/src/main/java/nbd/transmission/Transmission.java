package nbd.transmission;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.ErrorReply;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.ProtocolException;
import nbd.protocol.ReplyFormat;
import nbd.protocol.RequestHeader;
import nbd.protocol.WireInput;
import nbd.storage.Handle;
import nbd.threads.Turn;
import nbd.transmission.Admission.Pace;
import nbd.transmission.Admission.Place;
import nbd.transmission.Admission.Share;
import nbd.transmission.SlowRequests.Slow;
import org.tinylog.Logger;

/**
 * The transmission phase of one connection, run by its virtual thread.
 *
 * <p>A request takes one of three ways. What the handle can do at once, without waiting for storage
 * (its {@code ...Now} calls), is done by this thread, and the reply is collected with its
 * neighbours': requests that arrived together leave together, without a lock and without an
 * allocation. Everything else (a read that is not cached, a flush, a trim, a write while the kernel
 * throttles) gets a virtual thread of its own, so that what comes after it, here and on other
 * connections, does not wait; unless the handle can begin it and tell the end later. A write with
 * FUA that is alone on its connection is made by this thread as well if the storage has been quick
 * lately: a synchronous client waits for nothing else, and the way to another thread costs it up to
 * a fifth of its rate (beside a writer on another connection, on a disk that syncs in 0.12 ms).
 *
 * <p>The reason is measured (4 KiB cached reads, 4 connections x depth 8, two cores): a virtual
 * thread for every request reaches 0.6 of the throughput of doing it at once; but blocking calls
 * made at once would stop all connections as soon as two of them wait for a disk.
 */
public final class Transmission {
  /** Oversize writes up to this length are read and dropped, and answered. */
  private static final long DRAINED_WRITE = 128L << 20;

  /** The payload of a BLOCK_STATUS: the length of the range, and the one context that there is. */
  private static final int STATUS_PAYLOAD = 12;

  private static final Optional<ErrorReply> SUCCESS = Optional.of(ErrorReply.NONE);

  private final String peer;
  private final WireInput in;
  private final Handle handle;
  private final int maximumPayload;
  private final RequestCheck check;
  private final Share share;
  private final ReplyBatch batch;
  private final SlowRequests slow;
  private final RequestHeader request;
  private final boolean encrypted;

  public Transmission(
      String peer, WireInput in, Replies replies, OpenExport export, Share share, Turn turn) {
    this.peer = peer;
    this.in = in;
    this.handle = export.handle();
    this.maximumPayload = handle.blockSizes().maximumPayload();
    this.check = new RequestCheck(handle, export.advertised());
    ReplyFormat format = export.advertised().format();
    this.share = share;
    this.batch = new ReplyBatch(replies, handle, format, share.buffers(), turn);
    this.slow = new SlowRequests(peer, handle, replies, format);
    this.request = new RequestHeader(format == ReplyFormat.EXTENDED);
    this.encrypted = replies.encrypts();
  }

  /**
   * Serves until the client disconnects; returns when no request is running any more.
   *
   * @param stopping whether the end of the input means that the server stops, not that the client
   *     is gone
   * @throws IOException why the connection cannot go on
   */
  public void run(BooleanSupplier stopping) throws IOException {
    boolean orderly = false;
    try {
      orderly = serveUntilTheEnd(stopping);
      batch.send();
    } finally {
      if (!orderly) {
        slow.abandon();
      }
      batch.discard();
      try {
        handle.push();
      } finally {
        share.awaitNone();
      }
    }
  }

  /** Serves what arrives; whether what was received whole is to be answered, come what may. */
  private boolean serveUntilTheEnd(BooleanSupplier stopping) throws IOException {
    try {
      return serve() || stopping.getAsBoolean();
    } catch (EOFException | ProtocolException cutShort) {
      if (!stopping.getAsBoolean()) {
        throw cutShort;
      }
      // It was the server that ended the stream, in the middle of a request or not.
      return true;
    }
  }

  /** Serves what arrives; true if the client said goodbye, false if its stream just ended. */
  private boolean serve() throws IOException {
    while (next()) {
      Optional<Command> known = Command.of(request.type());
      if (known.isEmpty()) {
        String what = "unknown command " + request.type();
        dropPayload(maximumPayload);
        refuse(what, new ErrorReply(NbdError.EINVAL, what));
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
    int bytes = request.bytes();
    if (in.buffered() < bytes) {
      batch.send();
      if (!in.fill(bytes)) {
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
    CommandFlags flags = CommandFlags.of(request.flags());
    ErrorReply error = check.checkFlags(command, flags);
    if (command == Command.BLOCK_STATUS && flags.has(CommandFlag.PAYLOAD_LEN)) {
      if (!error.isError()) {
        filteredStatus(flags.without(CommandFlag.PAYLOAD_LEN));
        return;
      }
    } else if (!error.isError()) {
      error = check.check(command, request.offset(), request.length());
    }
    if (error.isError()) {
      dropPayload(command == Command.WRITE ? DRAINED_WRITE : maximumPayload);
      refuse(command.name(), error);
      return;
    }
    serve(command, flags.without(CommandFlag.PAYLOAD_LEN));
  }

  private void serve(Command command, CommandFlags flags) throws IOException {
    switch (command) {
      case READ -> read(flags);
      case WRITE -> write(flags);
      case FLUSH -> start(command, flags, 0);
      default -> {
        if (request.length() == 0) {
          batch.succeed(request);
        } else {
          start(command, flags, request.length());
        }
      }
    }
  }

  /** A BLOCK_STATUS that names the contexts it wants, and brings the length of its range along. */
  private void filteredStatus(CommandFlags flags) throws IOException {
    ErrorReply error = check.blockStatusPayload();
    if (request.payloadLength() == STATUS_PAYLOAD) {
      sendBeforeWaitingFor(STATUS_PAYLOAD);
      in.require(STATUS_PAYLOAD);
      long length = in.buffer().getLong();
      if (in.buffer().getInt() == BlockStatus.CONTEXT) {
        error = check.check(Command.BLOCK_STATUS, request.offset(), length);
        if (!error.isError()) {
          start(Command.BLOCK_STATUS, flags, length);
          return;
        }
      }
    } else {
      dropPayload(maximumPayload);
    }
    refuse(Command.BLOCK_STATUS.name(), error);
  }

  /** Drops what follows a request that is refused, as long as that is cheap. */
  private void dropPayload(long most) throws IOException {
    long payload = request.payloadLength();
    if (Long.compareUnsigned(payload, most) > 0) {
      throw new ProtocolException("a payload of " + Long.toUnsignedString(payload) + " bytes");
    }
    sendBeforeWaitingFor(payload);
    in.skip(payload);
  }

  private void refuse(String what, ErrorReply error) throws IOException {
    Logger.debug(
        "{}: {} of {} bytes at {} with flags {} is refused: {}, {}",
        peer,
        what,
        Long.toUnsignedString(request.length()),
        Long.toUnsignedString(request.offset()),
        request.flags(),
        error.error(),
        error.message());
    batch.fail(request, error);
  }

  private void read(CommandFlags flags) throws IOException {
    int length = (int) request.length();
    if (length == 0) {
      batch.endRead(request);
    } else if (!(length <= ReplyBatch.LONGEST_READ ? readNow(length) : transferNow())) {
      start(Command.READ, flags, length);
    }
  }

  /** Reads into the batch if the handle can; false if nothing has happened. */
  private boolean readNow(int length) throws IOException {
    long offset = request.offset();
    int header = batch.dataHeaderBytes();
    ByteBuffer replies;
    try {
      replies = batch.room(header + length);
    } catch (NbdException noMemory) {
      refuse(Command.READ.name(), ErrorReply.of(noMemory));
      return true;
    }
    int start = replies.position();
    int end = start + header + length;
    ErrorReply error = ErrorReply.NONE;
    boolean done;
    try {
      done = handle.readNow(replies.limit(end).position(start + header), offset);
    } catch (IOException failure) {
      done = true;
      error = slow.logFailure(Command.READ, offset, length, failure);
    } catch (RuntimeException | Error mistake) {
      done = true;
      error = slow.logMistake(Command.READ, mistake);
    }
    replies.clear().position(start);
    if (error.isError()) {
      batch.failAt(request, error, offset);
    } else if (done) {
      batch.addRead(request, end);
    }
    return done;
  }

  /** Sends the data straight from the handle if that can do it; false if nothing has happened. */
  private boolean transferNow() throws IOException {
    if (encrypted) {
      return slow.isPlain((int) request.length()) && batch.sendRead(request);
    }
    try {
      return batch.sendWith(request);
    } catch (CutShortException cut) {
      ErrorReply error = slow.logCut(request.offset(), request.length(), cut);
      batch.failAt(request, error, request.offset() + cut.sent());
      return true;
    }
  }

  private void write(CommandFlags flags) throws IOException {
    int length = (int) request.length();
    if (length == 0) {
      batch.succeed(request);
      return;
    }
    sendBeforeWaitingFor(length);
    if (length <= in.capacity()) {
      in.require(length);
      if (mayWriteHere(flags, length) && writeBuffered(flags, length)) {
        return;
      }
    }
    Place place = admitWrite(length);
    boolean handedOn = false;
    Optional<ErrorReply> done = Optional.empty();
    try {
      // Nothing is written before all of it is here: who is gone may send it again elsewhere.
      done = receive(place, length);
      if (done.isEmpty() && flags.equals(CommandFlags.NONE)) {
        done = writeHere(place.buffer().orElseThrow(), flags, request.offset());
      }
      if (done.isEmpty()) {
        Slow started = slow(Command.WRITE, flags, length, place);
        handedOn = true;
        slow.start(started);
      }
    } finally {
      if (!handedOn) {
        place.leave();
      }
    }
    if (done.isPresent()) {
      answer(done.get());
    }
  }

  private void answer(ErrorReply error) throws IOException {
    if (error.isError()) {
      batch.fail(request, error);
    } else {
      batch.succeed(request);
    }
  }

  private Place admit(long bytes) throws IOException {
    Optional<Place> place = share.tryAdmit(bytes);
    if (place.isPresent()) {
      return place.get();
    }
    batch.send();
    return share.admit(bytes);
  }

  /** Memory that has to be waited for goes to clients that send something. */
  private Place admitWrite(int length) throws IOException {
    Optional<Place> place = share.tryAdmit(Admission.bytesFor(length));
    if (place.isPresent()) {
      return place.get();
    }
    batch.send();
    in.require(Math.min(length, in.capacity()));
    return share.admit(Admission.bytesFor(length));
  }

  /** With memory for the whole reply, or if that is not plentiful, without. */
  private Place admitRead(int length) throws IOException {
    long bytes = Admission.bytesFor(length);
    if (!share.hasRoom(bytes)) {
      batch.send();
      share.awaitRoom(bytes);
    }
    Optional<Place> place = share.tryAdmitReply(bytes);
    return place.isPresent() ? place.get() : admit(Admission.REQUEST_BYTES);
  }

  /**
   * Takes a payload.
   *
   * @return empty, or the error if there was no memory; the payload is dropped then
   */
  private Optional<ErrorReply> receive(Place place, int length) throws IOException {
    ByteBuffer payload;
    try {
      payload = place.allocate(length);
    } catch (NbdException noMemory) {
      place.releaseBuffer();
      in.skip(length);
      return Optional.of(ErrorReply.of(noMemory));
    }
    Pace pace = share.receiving();
    pace.begin();
    try {
      while (payload.hasRemaining()) {
        pace.moved(in.readSome(payload));
      }
    } finally {
      pace.end();
    }
    payload.flip();
    return Optional.empty();
  }

  /**
   * Whether this thread may write: always without flags, where it is only tried. With FUA it waits
   * for storage, which is quick and keeps no other request of the connection waiting.
   */
  private boolean mayWriteHere(CommandFlags flags, int payload) throws IOException {
    if (flags.equals(CommandFlags.NONE)) {
      return true;
    }
    boolean alone = in.buffered() == payload && share.isEmpty();
    if (!alone || !handle.fuaIsQuick()) {
      return false;
    }
    batch.send();
    return true;
  }

  /** Writes from the input's buffer; false if nothing has happened, and the payload is there. */
  private boolean writeBuffered(CommandFlags flags, int length) throws IOException {
    ByteBuffer buffered = in.buffer();
    int start = buffered.position();
    int end = buffered.limit();
    Optional<ErrorReply> done = Optional.empty();
    try {
      done = writeHere(buffered.limit(start + length), flags, request.offset());
    } finally {
      buffered.limit(end).position(done.isPresent() ? start + length : start);
    }
    if (done.isPresent()) {
      answer(done.get());
    }
    return done.isPresent();
  }

  /**
   * Writes on this thread: with FUA whatever it takes, else at once if the handle can. Says how it
   * went; empty if nothing has happened.
   */
  private Optional<ErrorReply> writeHere(ByteBuffer data, CommandFlags flags, long offset) {
    int length = data.remaining();
    try {
      if (flags.has(CommandFlag.FUA)) {
        handle.write(data, offset, flags);
        return SUCCESS;
      }
      return handle.writeNow(data, offset) ? SUCCESS : Optional.empty();
    } catch (IOException failure) {
      return Optional.of(slow.logFailure(Command.WRITE, offset, length, failure));
    } catch (RuntimeException | Error mistake) {
      return Optional.of(slow.logMistake(Command.WRITE, mistake));
    }
  }

  /** The client may be waiting for replies before it sends the rest of a payload. */
  private void sendBeforeWaitingFor(long bytes) throws IOException {
    if (in.buffered() < bytes) {
      batch.send();
    }
  }

  /** Hands the current request to a thread of its own. */
  private void start(Command command, CommandFlags flags, long length) throws IOException {
    int bytes = slow.replyBytes(command, flags, length);
    Place place = command == Command.READ ? admitRead(bytes) : admit(Admission.bytesFor(bytes));
    boolean handedOn = false;
    try {
      if (place.hasMemory()) {
        place.allocate(bytes);
      }
      Slow started = slow(command, flags, length, place);
      handedOn = true;
      slow.start(started);
    } catch (NbdException noMemory) {
      place.leave();
      refuse(command.name(), ErrorReply.of(noMemory));
    } finally {
      if (!handedOn) {
        place.leave();
      }
    }
  }

  private Slow slow(Command command, CommandFlags flags, long length, Place place) {
    return new Slow(command, flags, request.cookie(), request.offset(), length, place);
  }
}
