package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.lang.foreign.MemorySegment;

/**
 * The ioctl calls of an open block device. Ranges are multiples of {@link #sectorSize}. Every call
 * may wait. Source: linux/fs.h, block/ioctl.c.
 */
public final class BlockDevice {
  private static final long BLKROGET = 0x125e;
  private static final long BLKSSZGET = 0x1268;
  private static final long BLKDISCARD = 0x1277;
  private static final long BLKROTATIONAL = 0x127e;
  private static final long BLKZEROOUT = 0x127f;
  private static final long BLKGETSIZE64 = 0x80081272L;

  private final PosixFile file;

  /** Calls on an opening of the device. */
  public BlockDevice(PosixFile file) {
    this.file = file;
  }

  /** The size, in bytes. */
  public long size() throws PosixException {
    return ask("BLKGETSIZE64", BLKGETSIZE64, Long.BYTES);
  }

  /** The smallest unit that it reads and writes, in bytes; the page cache takes less. */
  public int sectorSize() throws PosixException {
    return (int) ask("BLKSSZGET", BLKSSZGET, Integer.BYTES);
  }

  /** Says whether it refuses writes, though it may have been opened for them. */
  public boolean isReadOnly() throws PosixException {
    return ask("BLKROGET", BLKROGET, Integer.BYTES) != 0;
  }

  /** Says whether sequential access pays, as on a hard disk. */
  public boolean isRotational() throws PosixException {
    return ask("BLKROTATIONAL", BLKROTATIONAL, Short.BYTES) != 0;
  }

  /**
   * Gives a range back, whose contents are undefined then.
   *
   * @throws PosixException with EOPNOTSUPP if the device cannot
   */
  public void discard(long offset, long length) throws PosixException {
    change("BLKDISCARD", BLKDISCARD, offset, length);
  }

  /** Makes a range read as zeroes and stay allocated; the kernel writes zeroes if it must. */
  public void zeroOut(long offset, long length) throws PosixException {
    change("BLKZEROOUT", BLKZEROOUT, offset, length);
  }

  private long ask(String name, long request, int bytes) throws PosixException {
    return Calls.checked(
        name,
        file.name,
        (arena, state) -> {
          MemorySegment memory = arena.allocate(8, 8);
          int result = (int) file.calls.ioctl.invokeExact(state, file.fd, request, memory);
          if (result < 0) {
            return result;
          }
          return switch (bytes) {
            case Long.BYTES -> memory.get(JAVA_LONG, 0);
            case Integer.BYTES -> memory.get(JAVA_INT, 0);
            default -> memory.get(JAVA_SHORT, 0);
          };
        });
  }

  private void change(String name, long request, long offset, long length) throws PosixException {
    Calls.checked(
        name,
        file.name,
        (arena, state) -> {
          MemorySegment range = arena.allocate(16, 8);
          range.set(JAVA_LONG, 0, offset);
          range.set(JAVA_LONG, 8, length);
          return (int) file.calls.ioctl.invokeExact(state, file.fd, request, range);
        });
  }
}
