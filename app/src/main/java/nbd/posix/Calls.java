package nbd.posix;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.VarHandle;
import java.util.Locale;
import java.util.Optional;
import org.tinylog.Logger;

/**
 * The system's calls, as method handles of the C library's functions. A handle that reports an
 * errno takes a segment of {@link #STATE} first.
 *
 * <p>They exist on 64-bit Linux only: elsewhere {@link #LINKED} is empty, one line of the log says
 * so, and files are served with the JDK's own calls. The numbers in this package are Linux's, and
 * the same on x86-64 and AArch64.
 */
@SuppressWarnings("restricted") // calling the system is what this package is for
final class Calls {
  private static final StructLayout STATE = Linker.Option.captureStateLayout();
  private static final VarHandle ERRNO = STATE.varHandle(PathElement.groupElement("errno"));

  /** File descriptor, address, bytes, offset. */
  private static final FunctionDescriptor AT =
      FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG);

  /** File descriptor, address of the vector, its entries, offset, flags. */
  private static final FunctionDescriptor VECTOR_AT =
      FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT);

  /** File descriptor, address, bytes or, of a vector, entries. */
  private static final FunctionDescriptor COPY =
      FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG);

  static final Optional<Calls> LINKED = link();

  private final Linker linker = Linker.nativeLinker();

  final MethodHandle openat =
      withErrno("openat", FunctionDescriptor.of(JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT), 3);
  final MethodHandle close = plain("close", FunctionDescriptor.of(JAVA_INT, JAVA_INT));
  final MethodHandle lseek =
      withErrno("lseek", FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT));
  final MethodHandle pread = withErrno("pread", AT);
  final MethodHandle preadv2 = plain("preadv2", VECTOR_AT);
  final MethodHandle preadv2Errno = withErrno("preadv2", VECTOR_AT);
  final MethodHandle pwrite = plain("pwrite", AT);
  final MethodHandle pwriteErrno = withErrno("pwrite", AT);
  final MethodHandle fdatasync = withErrno("fdatasync", FunctionDescriptor.of(JAVA_INT, JAVA_INT));
  final MethodHandle fallocate =
      withErrno(
          "fallocate", FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG));

  /** Returns the errno. */
  final MethodHandle posixFadvise =
      plain(
          "posix_fadvise",
          FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT));

  final MethodHandle syncFileRange =
      withErrno(
          "sync_file_range",
          FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT));
  final MethodHandle fcntl =
      withErrno("fcntl", FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS), 2);
  final MethodHandle ioctl =
      withErrno("ioctl", FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_LONG, ADDRESS), 2);
  final MethodHandle getsockopt =
      withErrno(
          "getsockopt",
          FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS, ADDRESS));
  final MethodHandle pipe2 = withErrno("pipe2", FunctionDescriptor.of(JAVA_INT, ADDRESS, JAVA_INT));
  final MethodHandle read = withErrno("read", COPY);
  final MethodHandle write = withErrno("write", COPY);
  final MethodHandle writev = withErrno("writev", COPY);

  /** From, its offset, to, its offset, bytes, flags. */
  final MethodHandle splice =
      withErrno(
          "splice",
          FunctionDescriptor.of(
              JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT));

  final MethodHandle schedYield = plain("sched_yield", FunctionDescriptor.of(JAVA_INT));
  final MethodHandle cachestat =
      linker.downcallHandle(
          linker.defaultLookup().findOrThrow("syscall"),
          FunctionDescriptor.of(JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT),
          Linker.Option.firstVariadicArg(1));

  private static Optional<Calls> link() {
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

  private MethodHandle plain(String name, FunctionDescriptor type) {
    return linker.downcallHandle(linker.defaultLookup().findOrThrow(name), type);
  }

  private MethodHandle withErrno(String name, FunctionDescriptor type, int... firstVariadic) {
    Linker.Option capture = Linker.Option.captureCallState("errno");
    Linker.Option[] options =
        firstVariadic.length == 0
            ? new Linker.Option[] {capture}
            : new Linker.Option[] {capture, Linker.Option.firstVariadicArg(firstVariadic[0])};
    return linker.downcallHandle(linker.defaultLookup().findOrThrow(name), type, options);
  }

  /** A call, with memory for its arguments and for the errno. */
  @FunctionalInterface
  interface Call {
    /** Returns a negative number if the call failed; throws nothing that a caller expects. */
    long run(Arena arena, MemorySegment state) throws Throwable;
  }

  /**
   * Makes a call, again while a signal interrupts it.
   *
   * @param name of the call, for messages
   * @param file of which it is made, for messages
   */
  static long checked(String name, String file, Call call) throws PosixException {
    long result = run(call);
    if (result < 0) {
      throw new PosixException(name, (int) -result, file);
    }
    return result;
  }

  /** Makes a call as {@link #checked}; returns -1 if it would have to wait (EAGAIN). */
  static long tried(String name, String file, Call call) throws PosixException {
    long result = run(call);
    if (result < 0 && result != -Errno.EAGAIN.number) {
      throw new PosixException(name, (int) -result, file);
    }
    return Math.max(result, -1);
  }

  /** Returns the result, or the negative errno. */
  private static long run(Call call) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      while (true) {
        long result = call.run(arena, state);
        int errno = result < 0 ? (int) ERRNO.get(state, 0L) : 0;
        if (errno != Errno.EINTR.number) {
          return result < 0 ? -errno : result;
        }
      }
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }
}
