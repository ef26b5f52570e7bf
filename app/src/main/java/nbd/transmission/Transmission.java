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
import nbd.storage.Operation;
import nbd.threads.TimeSlice;
import nbd.transmission.Admission.Pace;
import nbd.transmission.Admission.Reservation;
import nbd.transmission.Admission.Share;
import nbd.transmission.PendingRequests.Pending;
import org.tinylog.Logger;

/**
 * The transmission phase of one connection, run by its virtual thread.
 *
 * <p>A request takes one of three ways. An operation that the handle does at once, without waiting
 * for storage, is done by this thread, and the reply is collected with its neighbours': requests
 * that arrived together leave together, without a lock and without an allocation. An operation that
 * the handle can begin is answered when its end is told. Everything else (a read that is not
 * cached, a flush, a write while the kernel throttles) gets a virtual thread of its own, so that
 * what comes after it, here and on other connections, does not wait.
 *
 * <p>A write with FUA is tried at once only while it is alone on its connection: a synchronous
 * client waits for nothing else, and the way to another thread costs it up to a fifth of its rate
 * (beside a writer on another connection, on a disk that syncs in 0.12 ms).
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

  /** The longest READ that is encrypted here; its buffer is held until the client takes it. */
  private static final int LONGEST_ENCRYPTED_READ = 1 << 18;

  private static final Optional<ErrorReply> SUCCESS = Optional.of(ErrorReply.NONE);

  private final String peer;
  private final WireInput in;
  private final Handle handle;
  private final int maximumPayload;
  private final RequestCheck check;
  private final Share share;
  private final ReplyBatch batch;
  private final PendingRequests pending;
  private final FailureLog failures;
  private final Operation operation = Operation.flush();
  private final RequestHeader request;
  private final boolean encrypted;

  public Transmission(
      String peer, WireInput in, Replies replies, OpenExport export, Share share, TimeSlice slice) {
    this.peer = peer;
    this.in = in;
    this.handle = export.handle();
    this.maximumPayload = handle.blockSizes().maximumPayload();
    this.check = new RequestCheck(handle, export.advertised());
    ReplyFormat format = export.advertised().format();
    this.share = share;
    this.batch = new ReplyBatch(replies, handle::push, format, share.buffers(), slice);
    this.pending = new PendingRequests(peer, handle, replies, format);
    this.failures = new FailureLog(peer);
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
        pending.abandon();
      }
      batch.discard();
      try {
        handle.push();
      } finally {
        share.awaitNone();
      }
    }
  }

  /** Serves what arrives; true if what was received whole is to be answered, come what may. */
  private boolean serveUntilTheEnd(BooleanSupplier stopping) throws IOException {
    try {
      return receiveRequests() || stopping.getAsBoolean();
    } catch (EOFException | ProtocolException cutShort) {
      if (!stopping.getAsBoolean()) {
        throw cutShort;
      }
      // It was the server that ended the stream, in the middle of a request or not.
      return true;
    }
  }

  /** Serves what arrives; true if the client said goodbye, false if its stream just ended. */
  private boolean receiveRequests() throws IOException {
    while (next()) {
      Optional<Command> known = Command.of(request.type());
      if (known.isEmpty()) {
        String what = "unknown command " + request.type();
        dropPayload(maximumPayload);
        refuse(what, new ErrorReply(NbdError.EINVAL, what));
      } else if (known.get() == Command.DISC) {
        return true;
      } else {
        checkAndPerform(known.get());
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

  private void checkAndPerform(Command command) throws IOException {
    CommandFlags flags = CommandFlags.of(request.flags());
    ErrorReply error = check.checkFlags(command, flags);
    boolean filtered =
        command == Command.BLOCK_STATUS && flags.has(CommandFlag.PAYLOAD_LEN) && !error.isError();
    CommandFlags meant = flags.without(CommandFlag.PAYLOAD_LEN);
    if (filtered) {
      filteredStatus(meant);
      return;
    }
    if (!error.isError()) {
      error = check.check(command, request.offset(), request.length());
    }
    if (error.isError()) {
      dropPayload(command == Command.WRITE ? DRAINED_WRITE : maximumPayload);
      refuse(command.name(), error);
    } else {
      perform(command, meant);
    }
  }

  private void perform(Command command, CommandFlags flags) throws IOException {
    long length = request.length();
    if (command == Command.FLUSH) {
      performOnRange(command, CommandFlags.NONE);
    } else if (length == 0) {
      if (command == Command.READ) {
        batch.endRead(request);
      } else {
        batch.succeed(request);
      }
    } else {
      switch (command) {
        case READ -> read(flags, (int) length);
        case WRITE -> write(flags, (int) length);
        case BLOCK_STATUS -> start(command, flags, length);
        default -> performOnRange(command, flags);
      }
    }
  }

  private void performOnRange(Command command, CommandFlags flags) throws IOException {
    long length = request.length();
    operation.working(command, request.offset(), length, flags);
    if (operation.fua() || !answeredAtOnce()) {
      start(command, flags, length);
    }
  }

  /** Performs the operation if the handle can at once; says whether it is answered. */
  private boolean answeredAtOnce() throws IOException {
    Optional<ErrorReply> done = tryNow();
    if (done.isPresent()) {
      answer(done.get());
    }
    return done.isPresent();
  }

  /** Performs the operation if the handle can at once; empty if nothing has happened. */
  private Optional<ErrorReply> tryNow() {
    try {
      return handle.tryNow(operation) ? SUCCESS : Optional.empty();
    } catch (IOException | RuntimeException | Error failure) {
      return Optional.of(
          failures.failed(operation.command(), operation.offset(), operation.length(), failure));
    }
  }

  /** Serves a BLOCK_STATUS whose payload names the contexts and the length of its range. */
  private void filteredStatus(CommandFlags flags) throws IOException {
    ErrorReply error = RequestCheck.STATUS_PAYLOAD;
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

  private void read(CommandFlags flags, int length) throws IOException {
    if (!(length <= ReplyBatch.LONGEST_READ ? readIntoBatch(length) : sendRead(length))) {
      start(Command.READ, flags, length);
    }
  }

  /** Reads into the batch if the handle can at once; false if nothing has happened. */
  private boolean readIntoBatch(int length) throws IOException {
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
    operation.reading(replies.limit(end).position(start + header), offset);
    Optional<ErrorReply> done = tryNow();
    replies.clear().position(start);
    if (done.isEmpty()) {
      return false;
    }
    if (done.get().isError()) {
      batch.failAt(request, done.get(), offset);
    } else {
      batch.addRead(request, end);
    }
    return true;
  }

  /** Sends a long READ's data from this thread if the handle has it; false if nothing was sent. */
  private boolean sendRead(int length) throws IOException {
    if (encrypted) {
      return pending.isPlain(length) && length <= LONGEST_ENCRYPTED_READ && encryptRead(length);
    }
    long offset = request.offset();
    try {
      return batch.sendFrom(
          request, target -> handle.tryNow(operation.transferring(offset, length, target)));
    } catch (CutShortException cut) {
      batch.failAt(request, failures.cut(offset, length, cut), offset + cut.sent());
      return true;
    }
  }

  /**
   * Sends a READ's data through a buffer of its own: it is encrypted while the processor's cache
   * still has it. Read by other threads, and sent when their turn comes, large reads over TLS took
   * twice the processor time.
   */
  private boolean encryptRead(int length) throws IOException {
    ByteBuffer data;
    try {
      data = share.buffers().take(length);
    } catch (NbdException noMemory) {
      return false;
    }
    try {
      operation.reading(data, request.offset());
      Optional<ErrorReply> done = tryNow();
      if (done.isEmpty()) {
        return false;
      }
      if (done.get().isError()) {
        batch.failAt(request, done.get(), request.offset());
      } else {
        batch.sendRead(request, data.flip());
      }
      return true;
    } finally {
      share.buffers().giveBack(data);
    }
  }

  private void write(CommandFlags flags, int length) throws IOException {
    sendBeforeWaitingFor(length);
    if (length <= in.capacity()) {
      in.require(length);
      if (mayWriteNow(flags, length) && writeBuffered(flags, length)) {
        return;
      }
    }
    Reservation reservation = admitWrite(length);
    boolean handedOn = false;
    Optional<ErrorReply> done = Optional.empty();
    try {
      // Nothing is written before all of it is here: a client that leaves may send it elsewhere.
      done = receive(reservation, length);
      if (done.isEmpty() && flags.equals(CommandFlags.NONE)) {
        operation.writing(reservation.buffer().orElseThrow(), request.offset(), flags);
        done = tryNow();
      }
      if (done.isEmpty()) {
        Pending started = pending(Command.WRITE, flags, length, reservation);
        handedOn = true;
        pending.start(started);
      }
    } finally {
      if (!handedOn) {
        reservation.release();
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

  private Reservation admit(long bytes) throws IOException {
    Optional<Reservation> reservation = share.tryAdmit(bytes);
    if (reservation.isPresent()) {
      return reservation.get();
    }
    batch.send();
    return share.admit(bytes);
  }

  /** Memory that has to be waited for goes to clients that send something. */
  private Reservation admitWrite(int length) throws IOException {
    Optional<Reservation> reservation = share.tryAdmit(Admission.bytesFor(length));
    if (reservation.isPresent()) {
      return reservation.get();
    }
    batch.send();
    in.require(Math.min(length, in.capacity()));
    return share.admit(Admission.bytesFor(length));
  }

  /** With memory for the whole reply, or if that is not plentiful, without. */
  private Reservation admitRead(int length) throws IOException {
    long bytes = Admission.bytesFor(length);
    if (!share.hasRoom(bytes)) {
      batch.send();
      share.awaitRoom(bytes);
    }
    Optional<Reservation> reservation = share.tryAdmitReply(bytes);
    return reservation.isPresent() ? reservation.get() : admit(Admission.REQUEST_BYTES);
  }

  /**
   * Takes a payload.
   *
   * @return empty, or the error if there was no memory; the payload is dropped then
   */
  private Optional<ErrorReply> receive(Reservation reservation, int length) throws IOException {
    ByteBuffer payload;
    try {
      payload = reservation.allocate(length);
    } catch (NbdException noMemory) {
      reservation.releaseBuffer();
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
   * Says whether a write may be tried at once: with FUA only if no other request of the connection
   * waits meanwhile.
   */
  private boolean mayWriteNow(CommandFlags flags, int payload) throws IOException {
    if (flags.equals(CommandFlags.NONE)) {
      return true;
    }
    boolean alone = in.buffered() == payload && share.isEmpty();
    if (alone) {
      batch.send();
    }
    return alone;
  }

  /** Writes from the input's buffer; false if nothing has happened, and the payload is there. */
  private boolean writeBuffered(CommandFlags flags, int length) throws IOException {
    ByteBuffer buffered = in.buffer();
    int start = buffered.position();
    int end = buffered.limit();
    Optional<ErrorReply> done = Optional.empty();
    try {
      operation.writing(buffered.limit(start + length), request.offset(), flags);
      done = tryNow();
    } finally {
      buffered.limit(end).position(done.isPresent() ? start + length : start);
    }
    if (done.isPresent()) {
      answer(done.get());
    }
    return done.isPresent();
  }

  /** The client may be waiting for replies before it sends the rest of a payload. */
  private void sendBeforeWaitingFor(long bytes) throws IOException {
    if (in.buffered() < bytes) {
      batch.send();
    }
  }

  /** Hands the current request to a thread of its own. */
  private void start(Command command, CommandFlags flags, long length) throws IOException {
    int bytes = pending.replyBytes(command, flags, length);
    Reservation reservation =
        command == Command.READ ? admitRead(bytes) : admit(Admission.bytesFor(bytes));
    boolean handedOn = false;
    try {
      if (reservation.hasMemory()) {
        reservation.allocate(bytes);
      }
      Pending started = pending(command, flags, length, reservation);
      handedOn = true;
      pending.start(started);
    } catch (NbdException noMemory) {
      reservation.release();
      refuse(command.name(), ErrorReply.of(noMemory));
    } finally {
      if (!handedOn) {
        reservation.release();
      }
    }
  }

  private Pending pending(
      Command command, CommandFlags flags, long length, Reservation reservation) {
    return new Pending(command, flags, request.cookie(), request.offset(), length, reservation);
  }
}
