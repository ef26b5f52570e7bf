package nbd.posix;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.IOException;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;

/**
 * The system's calls for what a server shares with other processes: sockets, notices, the end of
 * its parent. Most servers do without this class, whose making would delay every start; the other
 * calls are {@link Calls}. Each handle takes a segment of {@link Calls#STATE} first.
 */
@SuppressWarnings("restricted") // calling the system is what this package is for
final class SocketCalls {
  static final int MSG_DONTWAIT = 0x40;
  private static final int MSG_NOSIGNAL = 0x4000;

  private final Linker linker = Linker.nativeLinker();

  /** Descriptor, its new number, flags. */
  final MethodHandle dup3 =
      withErrno("dup3", FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT));

  final MethodHandle getsockname =
      withErrno("getsockname", FunctionDescriptor.of(JAVA_INT, JAVA_INT, ADDRESS, ADDRESS));
  final MethodHandle getpeername =
      withErrno("getpeername", FunctionDescriptor.of(JAVA_INT, JAVA_INT, ADDRESS, ADDRESS));

  /** Family, type, protocol. */
  final MethodHandle socket =
      withErrno("socket", FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT));

  /** Family, type, protocol, place for two descriptors. */
  final MethodHandle socketpair =
      withErrno(
          "socketpair", FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS));

  /** Socket, message, flags. */
  private final MethodHandle sendmsg =
      withErrno("sendmsg", FunctionDescriptor.of(JAVA_LONG, JAVA_INT, ADDRESS, JAVA_INT));

  final MethodHandle recvmsg =
      withErrno("recvmsg", FunctionDescriptor.of(JAVA_LONG, JAVA_INT, ADDRESS, JAVA_INT));

  /** Name, flags. */
  final MethodHandle memfdCreate =
      withErrno("memfd_create", FunctionDescriptor.of(JAVA_INT, ADDRESS, JAVA_INT));

  /** Entries, their number, milliseconds. */
  final MethodHandle poll =
      withErrno("poll", FunctionDescriptor.of(JAVA_INT, ADDRESS, JAVA_LONG, JAVA_INT));

  /** Number of the call and three arguments, for calls without a function in the C library. */
  final MethodHandle syscall =
      linker.downcallHandle(
          linker.defaultLookup().findOrThrow("syscall"),
          FunctionDescriptor.of(JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG),
          Linker.Option.captureCallState("errno"),
          Linker.Option.firstVariadicArg(1));

  private SocketCalls() {}

  private static final class Holder {
    static final SocketCalls LINKED = new SocketCalls();
  }

  /**
   * Links the calls.
   *
   * @throws IOException if this is no 64-bit Linux
   */
  static SocketCalls linked() throws IOException {
    if (Calls.LINKED.isEmpty()) {
      throw new IOException("this needs 64-bit Linux");
    }
    return Holder.LINKED;
  }

  /**
   * Sends a message, or the part of it for which there is room.
   *
   * @param name of the socket, for messages
   * @return the number of bytes; -1 if there is no room at the moment
   */
  long send(int socket, MemorySegment message, String name) throws PosixException {
    return Calls.tried(
        "sendmsg",
        name,
        (_, state) ->
            (long) sendmsg.invokeExact(state, socket, message, MSG_DONTWAIT | MSG_NOSIGNAL));
  }

  private MethodHandle withErrno(String name, FunctionDescriptor type) {
    return linker.downcallHandle(
        linker.defaultLookup().findOrThrow(name), type, Linker.Option.captureCallState("errno"));
  }
}
