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
 * {@link #perform}; the others that read and write are shorthands for it, and cannot be overridden.
 *
 * <p>The caller owes: ranges are not empty, lie inside {@link #size()} and are multiples of the
 * minimum block size; no operation without its {@link Capability}, and no flag that the
 * capabilities do not name; no more operations at a time than the backend's {@link ThreadModel}
 * allows; {@link #close} once, when no operation runs. The caller has made these checks;
 * implementations do not repeat them. With {@link Patience#AT_ONCE} and {@link Patience#LATER} the
 * connection's own thread asks, one operation at a time.
 *
 * <p>An implementer owes: an operation may block its caller with {@link Patience#WAIT}, but a
 * virtual thread that is blocked must not hold up a carrier for long. It never interrupts a thread.
 * A buffer belongs to it until the operation has ended. A write never caches stale neighbouring
 * bytes, and a handle always sees its own writes: a filter that flushes handles for each other
 * relies on that. Data that is sent straight to a client is not kept for later reads.
 */
public abstract class Handle implements AutoCloseable {
  private final ExportFacts facts;

  /** A handle on such an export. */
  protected Handle(ExportFacts facts) {
    this.facts = facts;
  }

  /** Returns what is constant. */
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

  /** Returns the operations that may be asked for. */
  public final Capabilities capabilities() {
    return facts.capabilities();
  }

  /**
   * Says why every operation would throw a {@link LostException}, if the handle is known to be
   * broken for good. A handle that has broken without noticing says so at its next operation only.
   * Any thread may ask, also under a lock: it is cheap, and waits for nothing.
   *
   * @return a reason for people; empty while the handle works, as far as is known
   */
  public Optional<String> broken() {
    return Optional.empty();
  }

  /**
   * Performs an operation.
   *
   * @param operation the buffer of a READ or WRITE stands at its limit after {@link Outcome#DONE},
   *     and where it stood after {@link Outcome#DECLINED}
   * @param end told of the end if the outcome is {@link Outcome#BEGUN}, and in no other case
   * @return {@link Outcome#DONE} always, if patience is {@link Patience#WAIT}
   * @throws IOException if it failed, or may have failed in part: what a READ's buffer or a WRITE's
   *     range contain then is undefined. A FLUSH throws unless all is certainly durable. A transfer
   *     that has begun to send has sent as much as its target was told.
   */
  public abstract Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException;

  /**
   * Gets begun operations on their way; the thread that began them calls it before it waits for
   * anything else. May wait itself, for storage that takes no more at the moment.
   */
  public void push() {}

  /**
   * Ends this opening. Does not flush.
   *
   * @throws IOException if something was lost by that
   */
  @Override
  public abstract void close() throws IOException;

  /** Performs an operation on this thread if it needs no waiting; says whether it has. */
  public final boolean tryNow(Operation operation) throws IOException {
    return perform(operation, Patience.AT_ONCE, Completion.NONE) == Outcome.DONE;
  }

  /** Begins an operation without waiting; says whether it has. */
  public final boolean begin(Operation operation, Completion end) throws IOException {
    return perform(operation, Patience.LATER, end) == Outcome.BEGUN;
  }

  /** Performs an operation, and waits for it. */
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

  /** Runs {@link Operation#extents}, and gives its answer. */
  public final List<Extent> extents(long offset, long length, int most) throws IOException {
    Operation question = Operation.extents(offset, length, most);
    run(question);
    return question.extents();
  }
}
