package nbd.client;

import java.io.IOException;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
import nbd.posix.Pipe;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * A request in flight, with the thread that waits for its reply or the callback for its end.
 *
 * <p>Invariant: the caller goes on, or the callback runs, when the request has been both sent and
 * answered. Until it has been sent, its data belongs to the thread that sends; until it has been
 * answered, the buffer of a read belongs to the thread that reads. Every other field is written
 * before the bit of {@code state} that hands it on.
 */
final class Request {
  /** Set when the data is not needed for sending any more. */
  private static final int SENT = 1;

  /** Set when the buffer is filled and the outcome is known. */
  private static final int ANSWERED = 2;

  private static final int DONE = SENT | ANSWERED;

  /** Set when the caller has to send what is queued, only while the request is queued itself. */
  private static final int LEAD = 4;

  private static final VarHandle STATE;

  static {
    try {
      STATE = MethodHandles.lookup().findVarHandle(Request.class, "state", int.class);
    } catch (ReflectiveOperationException impossible) {
      throw new ExceptionInInitializerError(impossible);
    }
  }

  final Command command;
  final int flags;
  final long cookie;
  final long offset;
  final long length;

  /** Receives the extents of a BLOCK_STATUS; null for every other command. */
  final @Nullable ExtentList extents;

  private final @Nullable Thread caller;
  private final @Nullable Consumer<Request> whenDone;

  /** The payload of a WRITE, or the buffer that a READ fills. */
  private @Nullable ByteBuffer data;

  /** Holds the payload of a WRITE, or receives the data of a READ, instead of the buffer. */
  private final @Nullable Pipe pipe;

  private @Nullable Coverage coverage;

  /** The next in the queue; belongs to the queue's leader. */
  @Nullable Request next;

  private int stagedCount;

  @SuppressWarnings("unused") // by STATE
  private volatile int state;

  // The outcome, which the thread that reads writes before ANSWERED is set.

  /** True if the reply comes in chunks. */
  boolean chunked;

  /** True if the connection broke before the reply was complete. */
  boolean lost;

  /** The number of the server's error; 0 if there is none. */
  private int error;

  private String message = "";

  /**
   * Makes a request.
   *
   * @param caller the thread that waits for it, if there is one
   * @param whenDone called once if no thread waits, by the thread that sends or the one that reads
   */
  Request(
      @Nullable Thread caller,
      @Nullable Consumer<Request> whenDone,
      Command command,
      CommandFlags flags,
      long cookie,
      long offset,
      long length,
      @Nullable ByteBuffer data,
      @Nullable Pipe pipe,
      @Nullable ExtentList extents) {
    this.caller = caller;
    this.whenDone = whenDone;
    this.command = command;
    this.flags = flags.bits();
    this.cookie = cookie;
    this.offset = offset;
    this.length = length;
    this.data = data;
    this.pipe = pipe;
    this.extents = extents;
  }

  /** Makes a sentinel, which is never sent. */
  static Request sentinel() {
    return new Request(null, null, Command.DISC, CommandFlags.NONE, 0, 0, 0, null, null, null);
  }

  /** Links the request to the one that was begun before it and is not queued yet either. */
  void stagedAfter(@Nullable Request before) {
    next = before;
    stagedCount = before == null ? 1 : before.stagedCount + 1;
  }

  /** Returns the number of requests that {@link #stagedAfter} has linked, this one included. */
  int stagedCount() {
    return stagedCount;
  }

  /** Returns the payload of a WRITE; null for every other command. */
  @Nullable ByteBuffer payload() {
    return command == Command.WRITE ? data : null;
  }

  /** Returns the part of a READ's buffer that a piece of the reply belongs in. */
  ByteBuffer part(long start, long bytes) {
    if (data == null) {
      throw new IllegalStateException(command + " reads nothing");
    }
    return data.slice(data.position() + (int) start, (int) bytes);
  }

  /** Returns the pipe of a WRITE, or of a READ whose data is still all in it; null without one. */
  @Nullable Pipe pipe() {
    return command == Command.READ && data != null ? null : pipe;
  }

  /**
   * Continues a READ with a buffer, since its data does not fit the pipe as it comes, or not in
   * this order.
   */
  void leavePipe(Pipe from) throws IOException {
    ByteBuffer buffer = ByteBuffer.allocateDirect((int) length);
    from.take(buffer);
    data = buffer.clear();
  }

  /** Puts the data of a successful READ back into the pipe that it has left. */
  void returnToPipe() throws IOException {
    if (pipe != null && data != null && error == 0) {
      if (pipe.put(data.clear()) < length) {
        throw new IllegalStateException("a pipe has no room for the data of a request");
      }
    }
  }

  /** Returns the bytes of a READ that have arrived. */
  Coverage coverage() {
    if (coverage == null) {
      coverage = new Coverage();
    }
    return coverage;
  }

  /** Notes an error of the server; the first one is kept. */
  void fail(int number, String text) {
    if (error == 0) {
      error = number;
      message = text;
    }
  }

  /** Returns the server's error; null if there is none. */
  @Nullable NbdError error() {
    return error == 0 ? null : NbdError.of(error);
  }

  /** Returns the number of the server's error, as it sent it; 0 if there is none. */
  int errorNumber() {
    return error;
  }

  /** Returns the server's text for its error; may be empty. */
  String message() {
    return message;
  }

  /** Called once, by the thread that sends. */
  void sent() {
    add(SENT);
  }

  /** Called once, by the thread that reads. */
  void answered() {
    add(ANSWERED);
  }

  private void add(int bit) {
    int before = (int) STATE.getAndBitwiseOr(this, bit);
    if (((before | bit) & DONE) == DONE) {
      if (whenDone == null) {
        LockSupport.unpark(caller);
      } else {
        call(whenDone);
      }
    }
  }

  /** Calls back; the thread has other requests to end, whatever the callback throws. */
  private void call(Consumer<Request> callback) {
    try {
      callback.accept(this);
    } catch (RuntimeException | Error mistake) {
      try {
        Logger.error(mistake, "the callback of {} at {} failed", command, offset);
      } catch (RuntimeException | Error outOfMemory) {
        // Ending the other requests matters more than the message.
      }
    }
  }

  /** Says whether a thread waits for the request, which {@link #lead} can use. */
  boolean canLead() {
    return caller != null;
  }

  /** Makes the caller send what is queued. The request is queued, so its caller still waits. */
  void lead() {
    int _ = (int) STATE.getAndBitwiseOr(this, LEAD);
    LockSupport.unpark(caller);
  }

  /** Says whether the caller has nothing to wait for any more. */
  boolean isDone() {
    return (state & DONE) == DONE;
  }

  /**
   * Waits until the request is done, or its caller has to lead. Interrupts do not end the wait,
   * since the buffers are in use.
   *
   * @return false if the caller has to lead, and then to wait again
   */
  boolean await() {
    boolean interrupted = false;
    try {
      while (true) {
        int now = state;
        if ((now & LEAD) != 0) {
          int _ = (int) STATE.getAndBitwiseAnd(this, ~LEAD);
          return false;
        }
        if ((now & DONE) == DONE) {
          return true;
        }
        LockSupport.park(this);
        interrupted |= Thread.interrupted();
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }
}
