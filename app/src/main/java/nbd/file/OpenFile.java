package nbd.file;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.util.OptionalLong;

/**
 * An open image file or device: the calls that {@link FileBackend} and its handles are made of,
 * without their promises. Below it is the system, or in tests a disk that loses power. By default a
 * call that needs more than the JDK does nothing, or says that it cannot.
 *
 * <p>Any thread may call, but {@link #sync} one at a time. Every call may wait for the disk.
 * Offsets and lengths are in bytes; ranges are not empty and lie inside the size that the file had
 * when the handle was opened. Buffers are direct.
 */
interface OpenFile extends Closeable {
  /**
   * The abilities of a file, constant while it is open.
   *
   * @param extents whether {@link #nextData} and {@link #nextHole} tell
   * @param durableWrites whether {@link #writeDurably} works
   * @param fastZero whether zeroing is quicker than writing, as far as is known
   * @param cache whether {@link #readAhead} does something
   * @param rotational whether sequential access pays
   * @param preferredBlock the size of the best reads and writes, in bytes
   */
  record Traits(
      boolean extents,
      boolean durableWrites,
      boolean fastZero,
      boolean cache,
      boolean rotational,
      int preferredBlock) {
    static final Traits NONE = new Traits(false, false, false, false, false, 4096);
  }

  default Traits traits() {
    return Traits.NONE;
  }

  /** The size now. */
  long size() throws IOException;

  /** Reads some bytes at least; none if the file ends there. Moves the position. */
  int read(ByteBuffer into, long offset) throws IOException;

  /** Opens the way to the page cache for one handle. */
  default CachedReads cachedReads() {
    return CachedReads.NONE;
  }

  /** Writes all. */
  void write(ByteBuffer from, long offset) throws IOException;

  /**
   * Writes all, and returns when it is durable. A failure may be of this write, or report the loss
   * of an earlier one. Called by a virtual thread it blocks no carrier.
   *
   * @return false if the system cannot, or has no descriptors left; then nothing has happened
   */
  default boolean writeDurably(ByteBuffer from, long offset) throws IOException {
    return false;
  }

  /** Returns when all that was written, punched and zeroed before the call is durable. */
  void sync() throws IOException;

  /** Gives the range back if that is possible; its contents are undefined then. */
  default void discard(long offset, long length) throws IOException {}

  /**
   * Makes the range read as zeroes without writing them.
   *
   * @param mayPunch whether its blocks may be given back
   * @param mustBeFast whether it must not be tried where the system might write zeroes itself
   * @return false if that is not possible; then nothing has changed
   */
  default boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast)
      throws IOException {
    return false;
  }

  /** Finds data as {@link nbd.posix.PosixFile#nextData} does; by default all is data. */
  default OptionalLong nextData(long offset) throws IOException {
    return OptionalLong.of(offset);
  }

  /** Finds a hole as {@link nbd.posix.PosixFile#nextHole} does; by default the end. */
  default OptionalLong nextHole(long offset) throws IOException {
    return OptionalLong.of(size());
  }

  /** Reads the range into the page cache. */
  default void readAhead(long offset, long length) throws IOException {}

  /** Begins to write the dirty pages of the range to the disk. */
  default void startWriting(long offset, long length) throws IOException {}

  /** Writes the dirty pages of the range to the disk, which does not make them durable. */
  default void finishWriting(long offset, long length) throws IOException {}

  /** Drops the clean pages of the range from the page cache; length 0 is up to the end. */
  default void dropCached(long offset, long length) throws IOException {}

  @Override
  void close() throws IOException;

  /** Reads of data in the page cache, for one handle's own thread. Nothing here waits. */
  interface CachedReads {
    /** The reads where the page cache is unknown. */
    CachedReads NONE =
        new CachedReads() {
          @Override
          public boolean read(ByteBuffer into, long offset) {
            return false;
          }

          @Override
          public boolean has(long offset, long length) {
            return false;
          }

          @Override
          public long transfer(long offset, long length, WritableByteChannel to) {
            return 0;
          }
        };

    /** Fills a direct buffer if all of it is cached; else nothing has happened. */
    boolean read(ByteBuffer into, long offset);

    /** Says whether all of a range is cached. */
    boolean has(long offset, long length);

    /** Sends some of it; 0 if the channel takes none, or if it is not cached any more. */
    long transfer(long offset, long length, WritableByteChannel to) throws IOException;
  }
}
