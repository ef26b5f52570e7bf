package nbd.storage;

import java.nio.ByteBuffer;
import java.util.List;
import nbd.posix.Pipe;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import org.jspecify.annotations.Nullable;

/**
 * One command on its way through the filters to storage, and the answer of a BLOCK_STATUS. Offsets
 * and lengths are in bytes.
 *
 * <p>It is mutable so that the connection's thread, whose operations with {@link Patience#AT_ONCE}
 * end before the next one, needs only one object. An operation that a handle has begun belongs to
 * the handle until its end.
 */
public final class Operation {
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);

  private Command command = Command.FLUSH;
  private CommandFlags flags = CommandFlags.NONE;
  private long offset;
  private long length;
  private @Nullable ByteBuffer data;
  private @Nullable ReadTarget target;
  private @Nullable Pipe pipe;
  private int most;
  private boolean dirty;
  private List<Extent> extents = List.of();

  /** Makes a READ that fills the buffer from its position to its limit. */
  public static Operation read(ByteBuffer into, long offset) {
    return new Operation().reading(into, offset);
  }

  /**
   * Makes a READ whose data is put into an empty pipe. Only for {@link Patience#LATER}, and handles
   * that {@linkplain Handle#takesPipes take pipes}.
   */
  public static Operation read(Pipe into, long offset, long length) {
    return onPipe(Command.READ, into, offset, length, CommandFlags.NONE);
  }

  /**
   * Makes a WRITE of all that a pipe holds. Only for {@link Patience#LATER}, and handles that
   * {@linkplain Handle#takesPipes take pipes}.
   */
  public static Operation write(Pipe from, long offset, CommandFlags flags) {
    return onPipe(Command.WRITE, from, offset, from.held(), flags);
  }

  private static Operation onPipe(
      Command command, Pipe pipe, long offset, long length, CommandFlags flags) {
    Operation made = onRange(command, offset, length, flags);
    made.pipe = pipe;
    return made;
  }

  /**
   * Makes a WRITE of the buffer, from its position to its limit.
   *
   * @param flags FUA or none
   */
  public static Operation write(ByteBuffer from, long offset, CommandFlags flags) {
    return new Operation().writing(from, offset, flags);
  }

  /**
   * Makes a FLUSH: every write, trim and zero that completed on the handle before becomes durable,
   * and the handle forgets older data that it kept for reads.
   */
  public static Operation flush() {
    return new Operation();
  }

  /**
   * Makes a FLUSH with the flag FUA: the flush behind a command with FUA. The client takes its
   * failure for that command's own, so a handle that has to report a loss of other writes by a
   * failed flush still has to report it after this one.
   */
  public static Operation flushForFua() {
    return new Operation().working(Command.FLUSH, 0, 0, FUA);
  }

  /**
   * Makes a command on a range without data.
   *
   * @param command TRIM (the contents become undefined, the storage may be given back),
   *     WRITE_ZEROES, or CACHE (a hint to read the range ahead)
   * @param flags FUA; for WRITE_ZEROES also NO_HOLE (the range stays allocated) and FAST_ZERO (fail
   *     with ENOTSUP, and change nothing, where this is not faster than writing)
   */
  public static Operation onRange(Command command, long offset, long length, CommandFlags flags) {
    return new Operation().working(command, offset, length, flags);
  }

  /**
   * Makes a BLOCK_STATUS, which is a read: its answer is as new as the data that a read would give.
   *
   * @param most the largest number of extents wanted, at least 1
   */
  public static Operation extents(long offset, long length, int most) {
    Operation made = onRange(Command.BLOCK_STATUS, offset, length, CommandFlags.NONE);
    made.most = most;
    return made;
  }

  /**
   * Makes a BLOCK_STATUS that asks where the storage is dirty, as its {@linkplain
   * ExportFacts#dirtyBitmap dirty bitmap} says. Only for handles that have one.
   *
   * @param most the largest number of extents wanted, at least 1
   */
  public static Operation dirty(long offset, long length, int most) {
    Operation made = extents(offset, length, most);
    made.dirty = true;
    return made;
  }

  /** Makes this a READ into the buffer, as {@link #read}. */
  public Operation reading(ByteBuffer into, long at) {
    working(Command.READ, at, into.remaining(), CommandFlags.NONE);
    data = into;
    return this;
  }

  /**
   * Makes this a READ whose data goes from storage straight to the client, if that is cheaper. Only
   * for {@link Patience#AT_ONCE}.
   */
  public Operation transferring(long at, long bytes, ReadTarget to) {
    working(Command.READ, at, bytes, CommandFlags.NONE);
    target = to;
    return this;
  }

  /** Makes this a WRITE, as {@link #write}. */
  public Operation writing(ByteBuffer from, long at, CommandFlags with) {
    working(Command.WRITE, at, from.remaining(), with);
    data = from;
    return this;
  }

  /** Makes this a command without data, as {@link #onRange}. */
  public Operation working(Command of, long at, long bytes, CommandFlags with) {
    command = of;
    flags = with;
    offset = at;
    length = bytes;
    data = null;
    target = null;
    pipe = null;
    dirty = false;
    return this;
  }

  /** Returns the same operation with other flags; the two share the buffer, not the answer. */
  public Operation with(CommandFlags other) {
    Operation copy = onRange(command, offset, length, other);
    copy.data = data;
    copy.target = target;
    copy.pipe = pipe;
    copy.most = most;
    copy.dirty = dirty;
    return copy;
  }

  /** Returns the same operation with a view of the buffer, to be performed in its stead. */
  public Operation copy() {
    Operation copy = with(flags);
    copy.data = data == null ? null : data.duplicate();
    return copy;
  }

  /** Returns the command: never DISC or RESIZE. */
  public Command command() {
    return command;
  }

  /** Returns the flags. */
  public CommandFlags flags() {
    return flags;
  }

  /** Says whether the command has the flag FUA. */
  public boolean fua() {
    return flags.has(CommandFlag.FUA);
  }

  /** Returns where the range begins. */
  public long offset() {
    return offset;
  }

  /** Returns the length of the range. */
  public long length() {
    return length;
  }

  /** Says whether it is a READ with a target and no buffer. */
  public boolean isTransfer() {
    return target != null;
  }

  /** Returns the buffer of a READ or WRITE. */
  public ByteBuffer data() {
    if (data == null) {
      throw new IllegalStateException(command + " has no buffer");
    }
    return data;
  }

  /** Says whether it is a READ or WRITE with a pipe and no buffer. */
  public boolean isPiped() {
    return pipe != null;
  }

  /** Returns the pipe of a READ or WRITE that {@link #isPiped}. */
  public Pipe pipe() {
    if (pipe == null) {
      throw new IllegalStateException(command + " has no pipe");
    }
    return pipe;
  }

  /** Returns the target of a READ that {@link #isTransfer}. */
  public ReadTarget target() {
    if (target == null) {
      throw new IllegalStateException(command + " has no target");
    }
    return target;
  }

  /** Says whether it is a BLOCK_STATUS for the dirty bitmap, and not for data and holes. */
  public boolean asksForDirty() {
    return dirty;
  }

  /** Returns the largest number of extents wanted. */
  public int most() {
    return most;
  }

  /**
   * Answers a BLOCK_STATUS.
   *
   * @param found consecutive extents, the first of which begins at the offset: at least one, each
   *     unlike the one before. They may end before the range does; the caller then asks again from
   *     there. The last one may reach past the range, up to the size.
   */
  public void answer(List<Extent> found) {
    extents = found;
  }

  /** Returns the answer of a BLOCK_STATUS. */
  public List<Extent> extents() {
    return extents;
  }
}
