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
import java.util.Locale;
import java.util.Optional;
import org.tinylog.Logger;

/**
 * The system's calls, as method handles of the C library's functions. Those that report an errno
 * take a segment of {@link #STATE} first.
 *
 * <p>Linux on 64 bits only: elsewhere {@link #LINKED} is empty, one line of the log says so, and
 * files are served with what the JDK has. The numbers in this package are Linux's, and the same on
 * x86-64 and AArch64.
 */
@SuppressWarnings("restricted") // calling the system is what this package is for
final class Calls {
  private static final StructLayout STATE = Linker.Option.captureStateLayout();
  private static final VarHandle ERRNO = STATE.varHandle(PathElement.groupElement("errno"));

  static final Optional<Calls> LINKED = link();

  private final Linker linker = Linker.nativeLinker();

  final MethodHandle openat =
      withErrno("openat", FunctionDescriptor.of(JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT), 3);
  final MethodHandle close = plain("close", FunctionDescriptor.of(JAVA_INT, JAVA_INT));
  final MethodHandle lseek =
      withErrno("lseek", FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT));
  final MethodHandle pread =
      withErrno(
          "pread", FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG));
  final MethodHandle preadv2 =
      plain(
          "preadv2",
          FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT));
  final MethodHandle preadv2Errno =
      withErrno(
          "preadv2",
          FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT));
  final MethodHandle pwrite =
      plain("pwrite", FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG));
  final MethodHandle pwriteErrno =
      withErrno(
          "pwrite", FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG));
  final MethodHandle pwritev2 =
      withErrno(
          "pwritev2",
          FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT));
  final MethodHandle fdatasync = withErrno("fdatasync", FunctionDescriptor.of(JAVA_INT, JAVA_INT));
  final MethodHandle fallocate =
      withErrno(
          "fallocate", FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG));

  /** Answers the errno itself. */
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

  /** A call with the memory it needs; throws nothing of its own but what the system reports. */
  @FunctionalInterface
  interface Call {
    long run(Arena arena, MemorySegment state) throws Throwable;
  }

  /**
   * Makes a call that answers a negative number when it failed.
   *
   * @param name of the call, for messages
   * @param file of which it is made, for messages
   */
  static long checked(String name, String file, Call call) throws PosixException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      long result;
      do {
        result = call.run(arena, state);
      } while (result < 0 && (int) ERRNO.get(state, 0L) == PosixException.EINTR);
      if (result < 0) {
        throw new PosixException(name, (int) ERRNO.get(state, 0L), file);
      }
      return result;
    } catch (IOException failure) {
      if (failure instanceof PosixException known) {
        throw known;
      }
      throw new AssertionError(failure);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }
}
