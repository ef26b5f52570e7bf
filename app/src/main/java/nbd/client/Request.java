package nbd.client;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
import nbd.protocol.Command;
import nbd.protocol.NbdError;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * One request in flight, and the thread that waits for it, or what is told when it is done.
 *
 * <p>Invariant: the waiting thread leaves, or the end is told, when the request has both been sent
 * and been answered, and not before. Until it has been sent, its data belongs to the thread that
 * sends, and until it has been answered, the buffer of a read belongs to the thread that reads;
 * only then the caller may use them again. Everything but {@code state} is written before the bit
 * that hands it on.
 */
final class Request {
  /** Nobody looks at its data any more to send it. */
  private static final int SENT = 1;

  /** Nobody writes to its buffer any more, and the outcome is there. */
  private static final int ANSWERED = 2;

  private static final int DONE = SENT | ANSWERED;

  /** Its thread has to send what is queued: only set while the request is queued. */
  private static final int LEAD = 4;

  private static final VarHandle STATE;

  static {
    try {
      STATE = MethodHandles.lookup().findVarHandle(Request.class, "state", int.class);
    } catch (ReflectiveOperationException impossible) {
      throw new ExceptionInInitializerError(impossible);
    }
  }

  private final Command command;
  private final int flags;
  private final long cookie;
  private final long offset;
  private final long length;
  private final @Nullable Thread caller;
  private final @Nullable Consumer<Request> whenDone;

  /** What a WRITE sends, or what a READ fills. */
  private final @Nullable ByteBuffer data;

  /** What a BLOCK_STATUS or READ gathers besides; used by the thread that reads. */
  private final @Nullable ExtentList extents;

  private @Nullable Coverage coverage;

  /** The next in the queue; belongs to whoever holds the queue's end. */
  @Nullable Request next;

  /** How many were begun and not queued when this one was, itself included. */
  private int stagedCount;

  @SuppressWarnings("unused") // by STATE
  private volatile int state;

  private boolean chunked;
  private @Nullable NbdError error;
  private String message = "";
  private boolean lost;

  /** A request of the calling thread. */
  Request(
      Command command,
      int flags,
      long cookie,
      long offset,
      long length,
      @Nullable ByteBuffer data,
      @Nullable ExtentList extents) {
    this(Thread.currentThread(), null, command, flags, cookie, offset, length, data, extents);
  }

  /**
   * A request that nobody waits for.
   *
   * @param whenDone told once, by the thread that sends or the one that reads
   */
  static Request begun(
      Consumer<Request> whenDone,
      Command command,
      int flags,
      long cookie,
      long offset,
      ByteBuffer data) {
    return new Request(
        null, whenDone, command, flags, cookie, offset, data.remaining(), data, null);
  }

  private Request(
      @Nullable Thread caller,
      @Nullable Consumer<Request> whenDone,
      Command command,
      int flags,
      long cookie,
      long offset,
      long length,
      @Nullable ByteBuffer data,
      @Nullable ExtentList extents) {
    this.caller = caller;
    this.whenDone = whenDone;
    this.command = command;
    this.flags = flags;
    this.cookie = cookie;
    this.offset = offset;
    this.length = length;
    this.data = data;
    this.extents = extents;
  }

  /** A sentinel: never sent, and waited for by nobody. */
  static Request mark() {
    return new Request(null, null, Command.DISC, 0, 0, 0, 0, null, null);
  }

  /** It was begun, and waits to be queued after this one, if there is one. */
  void stagedAfter(@Nullable Request before) {
    next = before;
    stagedCount = before == null ? 1 : before.stagedCount + 1;
  }

  int stagedCount() {
    return stagedCount;
  }

  Command command() {
    return command;
  }

  int flags() {
    return flags;
  }

  long cookie() {
    return cookie;
  }

  long offset() {
    return offset;
  }

  long length() {
    return length;
  }

  /** What a WRITE sends; null for every other command. */
  @Nullable ByteBuffer payload() {
    return command == Command.WRITE ? data : null;
  }

  /** Where a piece of what a READ reads belongs. */
  ByteBuffer place(long start, long bytes) {
    if (data == null) {
      throw new IllegalStateException(command + " reads nothing");
    }
    return data.slice(data.position() + (int) start, (int) bytes);
  }

  /** Where the extents of a BLOCK_STATUS belong; null for every other command. */
  @Nullable ExtentList extents() {
    return extents;
  }

  /** Which bytes of a READ have come. */
  Coverage coverage() {
    if (coverage == null) {
      coverage = new Coverage();
    }
    return coverage;
  }

  /** The answer comes in chunks, of which this is one. */
  void noteChunk() {
    chunked = true;
  }

  /** Whether a chunk has come. */
  boolean hasChunks() {
    return chunked;
  }

  /** The server says that it failed; the first word counts. */
  void fail(NbdError failure, String text) {
    if (error == null) {
      error = failure;
      message = text;
    }
  }

  /** The connection broke. */
  void lose() {
    lost = true;
  }

  /** Why it failed; null if it did not, or after the connection broke. */
  @Nullable NbdError error() {
    return error;
  }

  /** What the server says of the failure; may be empty. */
  String message() {
    return message;
  }

  /** Whether the connection broke before the answer. */
  boolean isLost() {
    return lost;
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
        tellEnd(whenDone);
      }
    }
  }

  /** The thread that tells has others to tell as well. */
  private void tellEnd(Consumer<Request> end) {
    try {
      end.accept(this);
    } catch (RuntimeException | Error mistake) {
      try {
        Logger.error(mistake, "the end of {} at {} could not be told", command, offset);
      } catch (RuntimeException | Error outOfMemory) {
        // The others count for more than the message.
      }
    }
  }

  /** Whether a thread waits for it, which can be made to lead. */
  boolean canLead() {
    return caller != null;
  }

  /** Makes its thread send what is queued; it is queued itself, so the thread is still there. */
  void lead() {
    int _ = (int) STATE.getAndBitwiseOr(this, LEAD);
    LockSupport.unpark(caller);
  }

  /** Whether its thread has nothing to wait for any more. */
  boolean isDone() {
    return (state & DONE) == DONE;
  }

  /**
   * Waits until it is done, or has to lead. Interrupts do not end it: the buffers are in use.
   *
   * @return false if it has to lead, and then wait again
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
