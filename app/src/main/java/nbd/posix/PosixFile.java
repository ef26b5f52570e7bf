package nbd.posix;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Optional;
import org.tinylog.Logger;

/**
 * A file descriptor for what {@link java.nio.channels.FileChannel} cannot do: read only what is in
 * the page cache, ask how much of a range is there, make holes, and say with which errno a call
 * failed. Linux on 64 bits only; {@link #open} is empty elsewhere, and callers do without.
 *
 * <p>Any thread may call any method until {@link #close}; none of them allocates, but for those
 * that fail. Sources: the manual pages preadv2(2), pwrite(2), cachestat (Linux 6.5, mm/filemap.c),
 * fallocate(2).
 */
public final class PosixFile implements AutoCloseable {
  /** errno values of Linux that callers tell apart. */
  public static final int ENOSPC = 28;

  /** The file system has no such operation. */
  public static final int EOPNOTSUPP = 95;

  /** The file would become larger than is allowed. */
  public static final int EFBIG = 27;

  /** The user's quota is used up. */
  public static final int EDQUOT = 122;

  private static final int ENOSYS = 38;
  private static final int O_RDWR = 2;
  private static final int O_CLOEXEC = 0x80000;
  private static final int RWF_NOWAIT = 8;
  private static final int FALLOC_FL_KEEP_SIZE = 1;
  private static final int FALLOC_FL_PUNCH_HOLE = 2;
  private static final int FALLOC_FL_ZERO_RANGE = 0x10;
  private static final long SYS_CACHESTAT = 451;

  private static final Optional<Calls> CALLS = Calls.link();

  private final Calls calls;
  private final int fd;
  private final String name;
  private final boolean nowait;
  private volatile boolean cachestatMissing;

  private PosixFile(Calls calls, int fd, String name, boolean nowait) {
    this.calls = calls;
    this.fd = fd;
    this.name = name;
    this.nowait = nowait;
  }

  /**
   * Opens a file that exists.
   *
   * @return empty where the system is another one
   * @throws PosixException if it cannot be opened
   */
  public static Optional<PosixFile> open(Path path, boolean writable) throws PosixException {
    if (CALLS.isEmpty()) {
      return Optional.empty();
    }
    Calls calls = CALLS.get();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(Calls.STATE);
      int flags = O_CLOEXEC | (writable ? O_RDWR : 0);
      int fd = (int) calls.open.invokeExact(state, arena.allocateFrom(path.toString()), flags, 0);
      if (fd < 0) {
        throw new PosixException("open", Calls.errno(state), path.toString());
      }
      return Optional.of(new PosixFile(calls, fd, path.toString(), hasNowait(calls, fd, arena)));
    } catch (PosixException failure) {
      throw failure;
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /** Whether the file system can read without waiting; a tmpfs cannot, nor can most networks'. */
  private static boolean hasNowait(Calls calls, int fd, Arena arena) throws Throwable {
    MemorySegment state = arena.allocate(Calls.STATE);
    MemorySegment vector = arena.allocate(16, 8);
    vector.set(JAVA_LONG, 0, arena.allocate(1).address());
    vector.set(JAVA_LONG, 8, 1);
    long read =
        (long) calls.preadv2Errno.invokeExact(state, fd, vector.address(), 1, 0L, RWF_NOWAIT);
    return read >= 0 || Calls.errno(state) != EOPNOTSUPP;
  }

  /** A path by which the same open file can be opened once more, whatever its name is by now. */
  public Path descriptorPath() {
    return Path.of("/proc/self/fd/" + fd);
  }

  /**
   * Native memory in which one caller at a time passes the questions to {@link #readCached} and
   * {@link #isCached}, so that none is allocated for each.
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

  /**
   * Reads what the page cache has.
   *
   * @param address of native memory for {@code length} bytes
   * @return the bytes read, from the first on; 0 at the end of the file; negative if there are none
   *     to be had without waiting, or the call failed
   */
  public long readCached(Query query, long address, int length, long offset) {
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

  /**
   * Writes.
   *
   * @param address of native memory with {@code length} bytes
   * @return the bytes written, from the first on; negative if the call failed
   */
  public long write(long address, int length, long offset) {
    try {
      return (long) calls.pwrite.invokeExact(fd, address, (long) length, offset);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /**
   * Writes all that remains in a direct buffer.
   *
   * @throws PosixException with the errno of the call that failed
   */
  public void writeFully(ByteBuffer from, long offset) throws PosixException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(Calls.STATE);
      MemorySegment data = MemorySegment.ofBuffer(from);
      long done = 0;
      while (done < data.byteSize()) {
        long address = data.address() + done;
        long count = data.byteSize() - done;
        long written =
            (long) calls.pwriteErrno.invokeExact(state, fd, address, count, offset + done);
        if (written < 0) {
          throw new PosixException("pwrite", Calls.errno(state), name);
        }
        done += written;
      }
      from.position(from.limit());
    } catch (PosixException failure) {
      throw failure;
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /**
   * Whether the page cache holds every page of a range, up to date.
   *
   * @return false also where the kernel (before Linux 6.5) cannot tell
   */
  public boolean isCached(Query query, long offset, long length) {
    // A page that is just being read in counts as cached: the last one tells whether it is there.
    long spare = query.memory.address() + Query.BYTE;
    return isInCache(query, offset, length)
        && readCached(query, spare, 1, offset + length - 1) == 1;
  }

  private boolean isInCache(Query query, long offset, long length) {
    if (cachestatMissing) {
      return false;
    }
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
        return false;
      }
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
    long pages = ((offset + length - 1) >> 12) - (offset >> 12) + 1;
    return memory.get(JAVA_LONG, Query.ANSWER) >= pages;
  }

  /**
   * Gives a range's blocks back, so that it reads as zeroes.
   *
   * @throws PosixException with {@link #EOPNOTSUPP} where the file system cannot
   */
  public void punchHole(long offset, long length) throws PosixException {
    allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  /**
   * Makes a range read as zeroes, with its blocks allocated.
   *
   * @throws PosixException with {@link #EOPNOTSUPP} where the file system cannot
   */
  public void zeroRange(long offset, long length) throws PosixException {
    allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  private void allocate(int mode, long offset, long length) throws PosixException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(Calls.STATE);
      int result = (int) calls.fallocate.invokeExact(state, fd, mode, offset, length);
      if (result != 0) {
        int errno = Calls.errno(state);
        throw new PosixException("fallocate", errno == ENOSYS ? EOPNOTSUPP : errno, name);
      }
    } catch (PosixException failure) {
      throw failure;
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  @Override
  public void close() throws IOException {
    try {
      int ignored = (int) calls.close.invokeExact(fd);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /** The method handles. */
  @SuppressWarnings("restricted") // calling the system is what this class is for
  private static final class Calls {
    static final StructLayout STATE = Linker.Option.captureStateLayout();
    private static final VarHandle ERRNO = STATE.varHandle(PathElement.groupElement("errno"));

    private final Linker linker = Linker.nativeLinker();
    final MethodHandle open =
        withErrno("open", FunctionDescriptor.of(JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT), 2);
    final MethodHandle close = plain("close", FunctionDescriptor.of(JAVA_INT, JAVA_INT));
    final MethodHandle preadv2 =
        plain(
            "preadv2",
            FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT));
    final MethodHandle preadv2Errno =
        withErrno(
            "preadv2",
            FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT),
            -1);
    final MethodHandle pwrite =
        plain(
            "pwrite", FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG));
    final MethodHandle pwriteErrno =
        withErrno(
            "pwrite",
            FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG),
            -1);
    final MethodHandle fallocate =
        withErrno(
            "fallocate",
            FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG),
            -1);
    final MethodHandle cachestat =
        linker.downcallHandle(
            linker.defaultLookup().findOrThrow("syscall"),
            FunctionDescriptor.of(JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT),
            Linker.Option.firstVariadicArg(1));

    static Optional<Calls> link() {
      String system = System.getProperty("os.name", "");
      if (!system.toLowerCase(Locale.ROOT).equals("linux") || ADDRESS.byteSize() != 8) {
        Logger.info("{}: files are read and written without the calls that are Linux's", system);
        return Optional.empty();
      }
      try {
        return Optional.of(new Calls());
      } catch (RuntimeException | UnsatisfiedLinkError missing) {
        Logger.info("files are read and written without Linux's own calls: {}", missing);
        return Optional.empty();
      }
    }

    static int errno(MemorySegment state) {
      return (int) ERRNO.get(state, 0L);
    }

    private MethodHandle plain(String name, FunctionDescriptor type) {
      return linker.downcallHandle(linker.defaultLookup().findOrThrow(name), type);
    }

    private MethodHandle withErrno(String name, FunctionDescriptor type, int firstVariadic) {
      Linker.Option capture = Linker.Option.captureCallState("errno");
      Linker.Option[] options =
          firstVariadic < 0
              ? new Linker.Option[] {capture}
              : new Linker.Option[] {capture, Linker.Option.firstVariadicArg(firstVariadic)};
      return linker.downcallHandle(linker.defaultLookup().findOrThrow(name), type, options);
    }
  }
}
