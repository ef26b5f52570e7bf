package nbd.storage;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;
import nbd.protocol.BlockSizes;
import nbd.protocol.CommandFlags;

/**
 * One connection's own opening of a {@link Backend}. Offsets and lengths are in bytes.
 *
 * <p>The caller owes: ranges are not empty, lie inside {@link #size()} and are multiples of the
 * minimum block size; no call without its {@link Capability}; no flag that the capabilities do not
 * name; no more calls at a time than the backend's {@link ThreadModel} allows; {@link #close} once,
 * when no other call runs. The caller has made these checks; implementations do not repeat them.
 *
 * <p>An implementer owes: {@link #size}, {@link #blockSizes}, {@link #capabilities} and {@link
 * #identity} are constant and cheap. A call returns when it is done; it may block, and a virtual
 * thread that it blocks must not hold up a carrier for long. It never interrupts a thread. A buffer
 * belongs to it only during the call. What {@link #transferNow} sends is not kept for later reads;
 * a write never caches stale neighbouring bytes, and a handle always sees its own writes: a filter
 * that flushes handles for each other relies on that.
 *
 * <p>The calls named {@code ...Now} are the fast path: they do the work at once if that needs no
 * waiting, else nothing at all. They are only called where the thread model is {@link
 * ThreadModel#PARALLEL}; {@link #readNow} and {@link #transferNow} only by the connection's own
 * thread, one at a time for each handle. A handle that does not override them is always called in
 * the ordinary way.
 *
 * <p>The calls named {@code begin...} are for storage that is far away: they need no thread while
 * they wait. They are called as the fast path is, by the connection's own thread, and so is {@link
 * #push}, without which what was begun may not have been asked for.
 */
public interface Handle extends AutoCloseable {
  /** The export's size. */
  long size();

  /** The sizes that requests have to keep to. */
  default BlockSizes blockSizes() {
    return BlockSizes.DEFAULT;
  }

  /** What the storage says of itself to people; may be empty. */
  default String description() {
    return "";
  }

  /** What may be called. */
  Capabilities capabilities();

  /**
   * Tells openings of the same storage from openings of other storage under the same export name: a
   * file that has replaced another one, a session with a server that was begun anew. Where storage
   * is {@link Capability#MULTI_CONN}, a flush of one handle covers the writes of those others only
   * that were opened by the same name and have an equal identity. Constant, cheap and not null.
   *
   * @return an object with a meaning for {@code equals} and {@code hashCode}; by default the same
   *     for all handles, for a backend whose names always stand for the same storage
   */
  default Object identity() {
    return Handle.class;
  }

  /**
   * Whether the handle is known to be broken for good: every call would throw a {@link
   * LostException}. A handle that has broken without noticing says so by its next call only. Any
   * thread may ask, also under a lock: it is cheap, and waits for nothing.
   *
   * @return why, for people; empty while it works, as far as is known
   */
  default Optional<String> broken() {
    return Optional.empty();
  }

  /**
   * Reads.
   *
   * @param into filled from its position to its limit; a direct buffer is copied to once
   * @throws IOException if not all of it could be read; what is in the buffer then is undefined
   */
  void read(ByteBuffer into, long offset) throws IOException;

  /**
   * Reads like {@link #read} if the data is at hand.
   *
   * @return whether it was read; if not, nothing has happened, and the position is where it was
   * @throws IOException as {@link #read}
   */
  default boolean readNow(ByteBuffer into, long offset) throws IOException {
    return false;
  }

  /**
   * Reads like {@link #read}, but sends the data on its way to the client without passing it
   * through the program's memory, if it is at hand and that is cheaper.
   *
   * @param to told to begin before the first byte; not at all if the answer is false
   * @return whether all of it was sent; if not, nothing has happened
   * @throws IOException if the data could not be read or sent; if sending had begun, what {@link
   *     ReadTarget#sent} was told is what has been sent
   */
  default boolean transferNow(long offset, long length, ReadTarget to) throws IOException {
    return false;
  }

  /**
   * Writes.
   *
   * @param from written from its position to its limit
   * @param flags FUA or none
   * @throws IOException if not all of it could be written; what the range contains then is
   *     undefined
   */
  void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException;

  /**
   * Writes like {@link #write}, without flags, if that is expected to need no waiting.
   *
   * @return whether it was written; if not, nothing has happened, and the position is where it was
   * @throws IOException as {@link #write}
   */
  default boolean writeNow(ByteBuffer from, long offset) throws IOException {
    return false;
  }

  /**
   * Whether {@link #write} with FUA is expected to be over before it would pay to have another
   * thread make it. It may wait for storage all the same, and needs no carrier meanwhile.
   */
  default boolean fuaIsQuick() {
    return false;
  }

  /**
   * Begins to read like {@link #read}, and returns without waiting.
   *
   * @param into belongs to the handle until the end; its position may not move
   * @return whether it was begun; if not, nothing has happened, and the end is not told
   */
  default boolean beginRead(ByteBuffer into, long offset, Completion end) {
    return false;
  }

  /**
   * Begins to write like {@link #write}, and returns without waiting.
   *
   * @param from belongs to the handle until the end; its position may not move
   * @return whether it was begun; if not, nothing has happened, and the end is not told
   */
  default boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
    return false;
  }

  /**
   * Gets what was begun on its way; called before the thread waits for anything else. May wait
   * itself, for storage that takes no more at the moment.
   */
  default void push() {}

  /**
   * Makes every write, trim and zero that completed on this handle before the call durable, and
   * lets go of older data that the handle kept for reads.
   *
   * @throws IOException if that is not certain
   */
  void flush() throws IOException;

  /**
   * As {@link #flush}, for a command with FUA that is answered after it. The client takes a failure
   * for this command's; so whoever has to tell it, once, of a loss of other writes still has to do
   * so when this has failed.
   *
   * @throws IOException as {@link #flush}
   */
  default void flushForFua() throws IOException {
    flush();
  }

  /**
   * Gives the range's storage back; its contents are undefined then.
   *
   * @param flags FUA or none
   */
  void trim(long offset, long length, CommandFlags flags) throws IOException;

  /**
   * Makes the range read as zeroes.
   *
   * @param flags FUA, NO_HOLE (the range stays allocated), FAST_ZERO (fail with ENOTSUP, and change
   *     nothing, where this is not faster than writing)
   */
  void zero(long offset, long length, CommandFlags flags) throws IOException;

  /** Reads the range ahead: a hint. */
  void cache(long offset, long length) throws IOException;

  /**
   * Says where data is and where holes and zeroes are. It is a read: what it says is as new as what
   * a read would give.
   *
   * @param most how many extents are wanted at most, at least 1
   * @return consecutive extents, the first of which begins at the offset: at least one, each unlike
   *     the one before. They may end before the range does; then ask again from there. The last one
   *     may reach past the range, up to the size.
   */
  default List<Extent> extents(long offset, long length, int most) throws IOException {
    return List.of(Extent.data(length));
  }

  /**
   * Ends this opening. Does not flush.
   *
   * @throws IOException if something was lost by that
   */
  @Override
  void close() throws IOException;
}
