package nbd.storage;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;

/**
 * One connection's own opening of a {@link Backend}. Every operation passes through the one method
 * {@link #perform}; the other methods that read and write are shorthands for it.
 *
 * <p>Duties of the caller, which implementations do not check again: ranges are not empty, lie
 * inside {@link #size()} and are multiples of the minimum block size; operations and flags are only
 * those that the {@link Capability capabilities} name; no more operations run at a time than the
 * backend's {@link ThreadModel} allows; {@link #close} is called once, when none runs. Only the
 * connection's own thread uses {@link Patience#AT_ONCE} and {@link Patience#LATER}, for one
 * operation at a time.
 *
 * <p>Duties of the implementer: a virtual thread that an operation blocks does not hold up its
 * carrier for long, and no thread is interrupted. A write never caches stale neighbouring bytes,
 * and a handle always sees its own writes: a filter that flushes handles for each other relies on
 * that. Data that is sent straight to a client is not kept for later reads.
 */
public abstract class Handle implements AutoCloseable {
  private final ExportFacts facts;

  /** Makes a handle on an export. */
  protected Handle(ExportFacts facts) {
    this.facts = facts;
  }

  /** Returns the export's description, which is constant. */
  public final ExportFacts facts() {
    return facts;
  }

  /** Returns the export's size in bytes. */
  public final long size() {
    return facts.size();
  }

  /** Returns the sizes that requests have to keep to. */
  public final BlockSizes blockSizes() {
    return facts.blockSizes();
  }

  /** Returns the abilities besides reading. */
  public final Capabilities capabilities() {
    return facts.capabilities();
  }

  /**
   * Returns why the handle is broken for good, so that every operation would throw a {@link
   * LostException}; empty while it is not known to be. Any thread may call, also under a lock: it
   * is cheap, and waits for nothing.
   */
  public Optional<String> broken() {
    return Optional.empty();
  }

  /**
   * Says whether operations may have a pipe instead of a buffer: the data comes from a socket, or
   * goes to one, and nobody looks at it.
   */
  public boolean takesPipes() {
    return false;
  }

  /**
   * Performs an operation. Until it has ended, its buffer belongs to the handle.
   *
   * @param operation the buffer of a READ or WRITE stands at its limit after {@link Outcome#DONE},
   *     and where it stood after {@link Outcome#DECLINED}
   * @param end called if the outcome is {@link Outcome#BEGUN}, and in no other case
   * @return {@link Outcome#DONE} always, if patience is {@link Patience#WAIT}
   * @throws IOException if it failed, perhaps in part: the contents of a READ's buffer or a WRITE's
   *     range are undefined. A FLUSH throws unless all is certainly durable. A transfer has sent as
   *     many bytes as its target has counted.
   */
  public abstract Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException;

  /** Fetches data before it is read. */
  @FunctionalInterface
  public interface Prefetch {
    /**
     * Begins to fetch the data of a READ that follows. May wait for storage that takes no more at
     * the moment, so no virtual thread calls it.
     *
     * @param length at least 1; the range lies inside the export
     */
    void expect(long offset, long length);
  }

  /**
   * Returns how to begin reads whose data is then fetched at the same time. Empty where that does
   * nothing, and for storage that may keep data for this handle only: what is fetched is not marked
   * as read.
   */
  public Optional<Prefetch> prefetch() {
    return Optional.empty();
  }

  /**
   * Sends begun operations to the storage. The thread that began them calls this before it waits
   * for anything else. May itself wait for storage that takes no more at the moment.
   */
  public void push() {}

  /**
   * Ends this opening. Does not flush.
   *
   * @throws IOException if data was lost by that
   */
  @Override
  public abstract void close() throws IOException;

  /** Performs an operation with {@link Patience#AT_ONCE}; says whether it is done. */
  public final boolean tryNow(Operation operation) throws IOException {
    return perform(operation, Patience.AT_ONCE, Completion.NONE) == Outcome.DONE;
  }

  /** Begins an operation with {@link Patience#LATER}; says whether it has begun. */
  public final boolean begin(Operation operation, Completion end) throws IOException {
    return perform(operation, Patience.LATER, end) == Outcome.BEGUN;
  }

  /** Performs an operation with {@link Patience#WAIT}. */
  public final void run(Operation operation) throws IOException {
    Outcome outcome = perform(operation, Patience.WAIT, Completion.NONE);
    if (outcome != Outcome.DONE) {
      throw new IllegalStateException(operation.command() + " was " + outcome);
    }
  }

  /** Runs {@link Operation#read}. */
  public final void read(ByteBuffer into, long offset) throws IOException {
    run(Operation.read(into, offset));
  }

  /** Runs {@link Operation#write}. */
  public final void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    run(Operation.write(from, offset, flags));
  }

  /** Runs {@link Operation#flush}. */
  public final void flush() throws IOException {
    run(Operation.flush());
  }

  /** Runs a TRIM; see {@link Operation#onRange}. */
  public final void trim(long offset, long length, CommandFlags flags) throws IOException {
    run(Operation.onRange(Command.TRIM, offset, length, flags));
  }

  /** Runs a WRITE_ZEROES; see {@link Operation#onRange}. */
  public final void zero(long offset, long length, CommandFlags flags) throws IOException {
    run(Operation.onRange(Command.WRITE_ZEROES, offset, length, flags));
  }

  /** Runs a CACHE; see {@link Operation#onRange}. */
  public final void cache(long offset, long length) throws IOException {
    run(Operation.onRange(Command.CACHE, offset, length, CommandFlags.NONE));
  }

  /** Runs {@link Operation#extents}, and returns its answer. */
  public final List<Extent> extents(long offset, long length, int most) throws IOException {
    Operation question = Operation.extents(offset, length, most);
    run(question);
    return question.extents();
  }
}
