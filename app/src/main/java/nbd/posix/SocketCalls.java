package nbd.posix;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import java.io.IOException;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.invoke.MethodHandle;

/**
 * The system's calls for sockets that other processes made, beside those of {@link Calls}. A server
 * that was given none does without this class, whose making would delay every start. Each handle
 * takes a segment of {@link Calls#STATE} first.
 */
@SuppressWarnings("restricted") // calling the system is what this package is for
final class SocketCalls {
  private final Linker linker = Linker.nativeLinker();

  /** Descriptor, its new number, flags. */
  final MethodHandle dup3 =
      withErrno("dup3", FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT));

  final MethodHandle getsockname =
      withErrno("getsockname", FunctionDescriptor.of(JAVA_INT, JAVA_INT, ADDRESS, ADDRESS));
  final MethodHandle getpeername =
      withErrno("getpeername", FunctionDescriptor.of(JAVA_INT, JAVA_INT, ADDRESS, ADDRESS));

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
      throw new IOException("sockets of other processes can be taken on 64-bit Linux only");
    }
    return Holder.LINKED;
  }

  private MethodHandle withErrno(String name, FunctionDescriptor type) {
    return linker.downcallHandle(
        linker.defaultLookup().findOrThrow(name), type, Linker.Option.captureCallState("errno"));
  }
}
