package nbd.file;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.util.OptionalLong;

/**
 * An open image file or device: the calls that {@link FileBackend} and its handles are made of, and
 * nothing of what they promise. Below it is the system, or in tests a disk that loses power.
 *
 * <p>Any thread may call; but {@link #sync} is called by one at a time. All may wait for the disk.
 * Offsets and lengths are in bytes; ranges are not empty and lie inside the size that was found
 * when the handle was opened. Buffers are direct.
 */
interface OpenFile extends Closeable {
  /**
   * What can be done with it, constant for its life.
   *
   * @param extents whether {@link #nextData} and {@link #nextHole} tell
   * @param durableWrites whether {@link #writeDurably} is there
   * @param fastZero whether zeroing is quicker than writing, as far as is known
   * @param cache whether {@link #readAhead} does something
   * @param rotational whether sequential access pays
   * @param preferredBlock what it reads and writes best, in bytes
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

  Traits traits();

  /** The size now. */
  long size() throws IOException;

  /** Reads some bytes at least; none if the file ends there. Moves the position. */
  int read(ByteBuffer into, long offset) throws IOException;

  /** The way to what needs no waiting, of one handle. */
  CachedReads cachedReads();

  /** Writes all. */
  void write(ByteBuffer from, long offset) throws IOException;

  /**
   * Writes all, and returns when it is durable. What it throws may be of this write or of one that
   * was lost before. Called by a virtual thread it blocks no carrier.
   *
   * @return false if the system cannot, or has no descriptors left; then nothing has happened
   */
  boolean writeDurably(ByteBuffer from, long offset) throws IOException;

  /** Returns when all that was written, punched and zeroed before the call is durable. */
  void sync() throws IOException;

  /** Gives the range back if that is possible; its contents are undefined then. */
  void discard(long offset, long length) throws IOException;

  /**
   * Makes the range read as zeroes without writing them.
   *
   * @param mayPunch whether its blocks may be given back
   * @param mustBeFast whether it must not be tried where the system might write zeroes itself
   * @return false if that is not possible; then nothing has changed
   */
  boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast) throws IOException;

  /** As {@link nbd.posix.PosixFile#nextData}. */
  OptionalLong nextData(long offset) throws IOException;

  /** As {@link nbd.posix.PosixFile#nextHole}. */
  OptionalLong nextHole(long offset) throws IOException;

  /** Reads the range into the page cache. */
  void readAhead(long offset, long length) throws IOException;

  /** Begins to write what is dirty in the range to the disk. */
  void startWriting(long offset, long length) throws IOException;

  /** Writes what is dirty in the range to the disk; it need not be durable then. */
  void finishWriting(long offset, long length) throws IOException;

  /** Drops what is clean in the range from the page cache; length 0 is up to the end. */
  void dropCached(long offset, long length) throws IOException;

  @Override
  void close() throws IOException;

  /** Reads what is in the page cache, for one handle's own thread. Nothing here waits. */
  interface CachedReads {
    /** Where nothing is known of the cache. */
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

    /** Fills a direct buffer, if all of it is there; else nothing has happened. */
    boolean read(ByteBuffer into, long offset);

    /** Whether all of a range is there. */
    boolean has(long offset, long length);

    /** Sends some of it; 0 if the channel takes none, or if it is not there any more. */
    long transfer(long offset, long length, WritableByteChannel to) throws IOException;
  }
}
