package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Optional;
import java.util.OptionalLong;
import org.tinylog.Logger;

/**
 * A file descriptor for what {@link java.nio.channels.FileChannel} cannot do: read only what is in
 * the page cache, ask how much of a range is there, find and make holes, write one range through to
 * the disk, lock as qemu does, and tell with which errno a call failed. It exists on 64-bit Linux
 * only; elsewhere {@link #open} is empty, and callers do without.
 *
 * <p>Any thread may call any method until {@link #close}. Every method may wait for the disk but
 * {@link #readCached}, {@link #isCached} and {@link #cachedPages}. Methods that throw throw {@link
 * PosixException}.
 *
 * <p>The kernel reports a lost write once to each opening: see errseq_t in its documentation.
 *
 * <p>Sources: the manual pages open(2), preadv2(2), pwrite(2), lseek(2), fallocate(2),
 * fdatasync(2), posix_fadvise(2), sync_file_range(2), F_OFD_SETLK in fcntl(2); cachestat (Linux
 * 6.5, mm/filemap.c).
 */
public final class PosixFile implements AutoCloseable {
  static final int AT_FDCWD = -100;
  static final int O_CLOEXEC = 0x80000;
  private static final int O_ACCMODE = 3;
  private static final int O_WRONLY = 1;
  private static final int O_RDWR = 2;
  private static final int O_NONBLOCK = 0x800;
  private static final int O_DSYNC = 0x1000;
  private static final int RWF_NOWAIT = 8;
  private static final int SEEK_END = 2;
  private static final int SEEK_DATA = 3;
  private static final int SEEK_HOLE = 4;
  private static final int FALLOC_FL_KEEP_SIZE = 1;
  private static final int FALLOC_FL_PUNCH_HOLE = 2;
  private static final int FALLOC_FL_ZERO_RANGE = 0x10;
  private static final int SYNC_FILE_RANGE_WRITE = 2;
  private static final int SYNC_FILE_RANGE_ALL = 7;
  private static final int F_GETFL = 3;
  private static final int F_OFD_GETLK = 36;
  private static final int F_OFD_SETLK = 37;
  private static final short F_RDLCK = 0;
  private static final short F_WRLCK = 1;
  private static final short F_UNLCK = 2;
  private static final long SYS_CACHESTAT = 451;

  /** The way a range will be used: {@link #advise}. */
  public enum Advice {
    NORMAL(0),
    RANDOM(1),
    SEQUENTIAL(2),
    WILLNEED(3),
    DONTNEED(4);

    private final int number;

    Advice(int number) {
      this.number = number;
    }
  }

  final Calls calls;
  final int fd;
  final String name;
  private final boolean nowait;
  private volatile boolean cachestatMissing;

  private PosixFile(Calls calls, int fd, String name, boolean reads) throws PosixException {
    this.calls = calls;
    this.fd = fd;
    this.name = name;
    this.nowait = reads && hasNowait();
  }

  /** Says whether files can be opened this way on this system. */
  public static boolean isAvailable() {
    return Calls.LINKED.isPresent();
  }

  /**
   * Opens a file that exists. Does not wait for the other end of a pipe.
   *
   * @param name of the file, for messages
   * @return empty on other systems
   * @throws PosixException if it cannot be opened
   */
  public static Optional<PosixFile> open(Path path, boolean writable, String name)
      throws PosixException {
    if (Calls.LINKED.isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(open(path, writable ? O_RDWR : 0, name));
  }

  /**
   * Opens a file for {@link #writeDurably} only.
   *
   * @param name of the file, for messages
   * @throws PosixException if it cannot be opened
   */
  public static PosixFile openDurable(Path path, String name) throws PosixException {
    return open(path, O_WRONLY | O_DSYNC, name);
  }

  private static PosixFile open(Path path, int flags, String name) throws PosixException {
    Calls calls = Calls.LINKED.orElseThrow();
    int fd = openAt(calls, AT_FDCWD, path.toString(), O_CLOEXEC | O_NONBLOCK | flags, name);
    try {
      return new PosixFile(calls, fd, name, (flags & O_WRONLY) == 0);
    } catch (PosixException failure) {
      closeDescriptor(calls, fd);
      throw failure;
    }
  }

  /**
   * Uses an opening that another process has handed over, if it was opened for that use; owns the
   * descriptor then.
   *
   * @param name of the file, for messages
   */
  public static Optional<PosixFile> of(Descriptor opening, boolean writable, String name)
      throws PosixException {
    Calls calls = Calls.LINKED.orElseThrow();
    int fd = opening.number();
    long flags =
        Calls.checked(
            "fcntl",
            name,
            (_, state) -> (int) calls.fcntl.invokeExact(state, fd, F_GETFL, MemorySegment.NULL));
    if ((flags & O_ACCMODE) != (writable ? O_RDWR : 0)) {
      return Optional.empty();
    }
    PosixFile file = new PosixFile(calls, fd, name, true);
    int _ = opening.release();
    return Optional.of(file);
  }

  /** Returns the same opening by another descriptor, which the caller closes. */
  public Descriptor copy() throws PosixException {
    return Descriptor.copyOf(fd);
  }

  static int openAt(Calls calls, int directory, String path, int flags, String name)
      throws PosixException {
    return (int)
        Calls.checked(
            "open",
            name,
            (arena, state) ->
                (int) calls.openat.invokeExact(state, directory, arena.allocateFrom(path), flags));
  }

  static void closeDescriptor(Calls calls, int fd) {
    try {
      int ignored = (int) calls.close.invokeExact(fd);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /** Says whether the file system can read without waiting; tmpfs and most of networks cannot. */
  private boolean hasNowait() throws PosixException {
    try {
      Calls.checked(
          "preadv2",
          name,
          (arena, state) ->
              (long)
                  calls.preadv2Errno.invokeExact(
                      state, fd, vector(arena, arena.allocate(1)), 1, 0L, RWF_NOWAIT));
      return true;
    } catch (PosixException failure) {
      // Any other errno says that nothing is cached, or that reading fails.
      return !failure.isUnsupported() && failure.errno() != Errno.EINVAL;
    }
  }

  private static long vector(Arena arena, MemorySegment data) {
    MemorySegment vector = arena.allocate(16, 8);
    vector.set(JAVA_LONG, 0, data.address());
    vector.set(JAVA_LONG, 8, data.byteSize());
    return vector.address();
  }

  /** A path that opens the same file once more, whatever its name is by now. */
  public Path descriptorPath() {
    return Path.of("/proc/self/fd/" + fd);
  }

  /** The size, in bytes; not of a block device: {@link BlockDevice#size}. */
  public long size() throws PosixException {
    return seek(0, SEEK_END);
  }

  private long seek(long offset, int whence) throws PosixException {
    return Calls.checked(
        "lseek", name, (arena, state) -> (long) calls.lseek.invokeExact(state, fd, offset, whence));
  }

  /**
   * Finds where the next data begins, at the offset or after it; up to there is a hole.
   *
   * @return empty if there is none up to the end of the file, or if the offset is past it
   * @throws PosixException with EINVAL where the file system cannot tell
   */
  public OptionalLong nextData(long offset) throws PosixException {
    return find(offset, SEEK_DATA);
  }

  /**
   * Finds where the next hole begins, at the offset or after it; the end of the file is one.
   *
   * @return empty if the offset is past the end
   * @throws PosixException with EINVAL where the file system cannot tell
   */
  public OptionalLong nextHole(long offset) throws PosixException {
    return find(offset, SEEK_HOLE);
  }

  private OptionalLong find(long offset, int whence) throws PosixException {
    try {
      return OptionalLong.of(seek(offset, whence));
    } catch (PosixException failure) {
      if (failure.errno() == Errno.ENXIO) {
        return OptionalLong.empty();
      }
      throw failure;
    }
  }

  /**
   * Reads into a direct buffer, and moves its position.
   *
   * @return the bytes read, fewer than there is room for if the file ends
   */
  public int read(ByteBuffer into, long offset) throws PosixException {
    MemorySegment data = MemorySegment.ofBuffer(into);
    long read =
        Calls.checked(
            "pread",
            name,
            (arena, state) ->
                (long) calls.pread.invokeExact(state, fd, data.address(), data.byteSize(), offset));
    into.position(into.position() + (int) read);
    return (int) read;
  }

  /**
   * Native memory for the arguments of {@link #readCached} and {@link #isCached}, which so allocate
   * none. Used by one caller at a time.
   */
  public static final class Query {
    private static final long RANGE = 16;
    private static final long ANSWER = 32;
    private static final long BYTE = 72;

    private final MemorySegment memory;

    /** Allocates it. */
    public Query(Arena arena) {
      memory = arena.allocate(80, 8);
    }
  }

  /** Fills a direct buffer from the page cache; false if not all of it is cached. */
  public boolean readCached(Query query, ByteBuffer into, long offset) {
    int length = into.remaining();
    long address = MemorySegment.ofBuffer(into).address();
    if (readCached(query, address, length, offset) != length) {
      return false;
    }
    into.position(into.limit());
    return true;
  }

  /** Reads the bytes that are cached, from the first on; negative if the first is not. */
  private long readCached(Query query, long address, int length, long offset) {
    if (!nowait && !isInCache(query, offset, length)) {
      return -1;
    }
    MemorySegment memory = query.memory;
    memory.set(JAVA_LONG, 0, address);
    memory.set(JAVA_LONG, 8, length);
    int flags = nowait ? RWF_NOWAIT : 0;
    try {
      return (long) calls.preadv2.invokeExact(fd, memory.address(), 1, offset, flags);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /** Says whether the page cache holds all of a range; false where the kernel cannot tell. */
  public boolean isCached(Query query, long offset, long length) {
    // A page that is just being read in counts as cached, so the last one is read.
    long spare = query.memory.address() + Query.BYTE;
    return isInCache(query, offset, length)
        && readCached(query, spare, 1, offset + length - 1) == 1;
  }

  private boolean isInCache(Query query, long offset, long length) {
    if (cachestatMissing) {
      return false;
    }
    long pages = ((offset + length - 1) >> 12) - (offset >> 12) + 1;
    return cachedPages(query, offset, length) >= pages;
  }

  /**
   * Counts the pages of 4 KiB of a range that are in the page cache.
   *
   * @param length in bytes; 0 for up to the end of the file
   * @return negative where the kernel (before Linux 6.5) cannot tell
   */
  public long cachedPages(Query query, long offset, long length) {
    MemorySegment memory = query.memory;
    memory.set(JAVA_LONG, Query.RANGE, offset);
    memory.set(JAVA_LONG, Query.RANGE + 8, length);
    long range = memory.address() + Query.RANGE;
    long answer = memory.address() + Query.ANSWER;
    try {
      long result = (long) calls.cachestat.invokeExact(SYS_CACHESTAT, fd, range, answer, 0);
      if (result != 0) {
        cachestatMissing = true;
        Logger.debug("{}: the kernel does not tell what is cached (cachestat)", name);
        return -1;
      }
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
    return memory.get(JAVA_LONG, Query.ANSWER);
  }

  /** Writes all that remains in a direct buffer; waits while the kernel throttles the writer. */
  public void write(ByteBuffer from, long offset) throws PosixException {
    int length = from.remaining();
    if (tryWrite(MemorySegment.ofBuffer(from).address(), length, offset) == length) {
      from.position(from.limit());
      return;
    }
    // Not all of it was written: once more, by the call that says why.
    writeFully(from, offset);
  }

  private long tryWrite(long address, long length, long offset) {
    try {
      return (long) calls.pwrite.invokeExact(fd, address, length, offset);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /**
   * Writes all that remains in a direct buffer to an opening of {@link #openDurable}, and returns
   * when it, and the metadata that it needs, is on the disk.
   *
   * @throws PosixException also for the loss of an earlier write
   */
  public void writeDurably(ByteBuffer from, long offset) throws PosixException {
    writeFully(from, offset);
  }

  private void writeFully(ByteBuffer from, long offset) throws PosixException {
    MemorySegment data = MemorySegment.ofBuffer(from);
    long done = 0;
    while (done < data.byteSize()) {
      MemorySegment rest = data.asSlice(done);
      long at = offset + done;
      done +=
          Calls.checked(
              "pwrite",
              name,
              (_, state) ->
                  (long)
                      calls.pwriteErrno.invokeExact(
                          state, fd, rest.address(), rest.byteSize(), at));
    }
    from.position(from.limit());
  }

  /**
   * Returns when everything that was written is on the disk. A loss is reported to one of two
   * callers at once.
   */
  public void sync() throws PosixException {
    Calls.checked(
        "fdatasync", name, (arena, state) -> (int) calls.fdatasync.invokeExact(state, fd));
  }

  /**
   * Begins to write a range to the disk. The next {@link #finishWriting} or {@link #sync} reports a
   * loss.
   */
  public void startWriting(long offset, long length) throws PosixException {
    syncRange(offset, length, SYNC_FILE_RANGE_WRITE);
  }

  /** Writes a range to the disk, which may still hold it in a volatile cache afterwards. */
  public void finishWriting(long offset, long length) throws PosixException {
    syncRange(offset, length, SYNC_FILE_RANGE_ALL);
  }

  private void syncRange(long offset, long length, int flags) throws PosixException {
    Calls.checked(
        "sync_file_range",
        name,
        (arena, state) -> (int) calls.syncFileRange.invokeExact(state, fd, offset, length, flags));
  }

  /**
   * Advises the kernel; a file that takes no advice is no failure.
   *
   * @param length in bytes; 0 for up to the end of the file
   */
  public void advise(long offset, long length, Advice advice) {
    try {
      int errno = (int) calls.posixFadvise.invokeExact(fd, offset, length, advice.number);
      if (errno != 0) {
        Logger.debug("{}: posix_fadvise {}: errno {}", name, advice, errno);
      }
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /**
   * Gives a range's blocks back, so that it reads as zeroes.
   *
   * @throws PosixException with EOPNOTSUPP where the file system cannot
   */
  public void punchHole(long offset, long length) throws PosixException {
    allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  /**
   * Makes a range read as zeroes, with its blocks allocated.
   *
   * @throws PosixException with EOPNOTSUPP where the file system cannot
   */
  public void zeroRange(long offset, long length) throws PosixException {
    allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  private void allocate(int mode, long offset, long length) throws PosixException {
    Calls.checked(
        "fallocate",
        name,
        (arena, state) -> (int) calls.fallocate.invokeExact(state, fd, mode, offset, length));
  }

  /**
   * Locks one byte, which need not exist, against exclusive locks of other openings, until {@link
   * #unlock} or {@link #close}.
   *
   * @throws PosixException with EINVAL or ENOLCK where the file system has no such locks
   */
  public void lockShared(long at) throws PosixException {
    lock(F_OFD_SETLK, F_RDLCK, at, 1);
  }

  /** Releases the locks on a range. */
  public void unlock(long at, long length) throws PosixException {
    lock(F_OFD_SETLK, F_UNLCK, at, length);
  }

  /** Says whether another opening, here or in another process, holds any lock on a byte. */
  public boolean isLockedByOthers(long at) throws PosixException {
    return lock(F_OFD_GETLK, F_WRLCK, at, 1) != F_UNLCK;
  }

  /** Calls with a struct flock; returns the type that is in it afterwards. */
  private short lock(int command, short type, long at, long length) throws PosixException {
    return (short)
        Calls.checked(
            "fcntl",
            name,
            (arena, state) -> {
              MemorySegment flock = arena.allocate(32, 8);
              flock.set(JAVA_SHORT, 0, type);
              flock.set(JAVA_LONG, 8, at);
              flock.set(JAVA_LONG, 16, length);
              flock.set(JAVA_INT, 24, 0);
              int result = (int) calls.fcntl.invokeExact(state, fd, command, flock);
              return result < 0 ? result : flock.get(JAVA_SHORT, 0);
            });
  }

  @Override
  public void close() {
    closeDescriptor(calls, fd);
  }
}
