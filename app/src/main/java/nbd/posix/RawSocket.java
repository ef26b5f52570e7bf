package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.net.UnknownHostException;
import java.nio.ByteOrder;
import java.nio.charset.Charset;

/**
 * Questions about a descriptor that may be a socket. It is not closed by this class, and has to
 * stay open during each call. Sources: the manual pages socket(7), unix(7), ip(7), ipv6(7).
 */
final class RawSocket {
  static final int SO_TYPE = 3;
  static final int SO_LINGER = 13;
  static final int SO_RCVBUF = 8;
  static final int SO_ACCEPTCONN = 30;
  static final int SO_DOMAIN = 39;
  static final int SOCK_STREAM = 1;
  private static final int SOL_SOCKET = 1;
  private static final int AF_UNIX = 1;
  private static final int AF_INET = 2;
  private static final int AF_INET6 = 10;
  private static final int F_GETFL = 3;
  private static final int F_SETFL = 4;
  private static final int F_DUPFD_CLOEXEC = 1030;
  private static final int O_NONBLOCK = 0x800;

  /** The longest value of an option that is read here: a struct linger. */
  private static final int OPTION_BYTES = 8;

  /** The size of a struct sockaddr_storage. */
  private static final int NAME_BYTES = 128;

  private static final ValueLayout.OfShort PORT = JAVA_SHORT.withOrder(ByteOrder.BIG_ENDIAN);

  private final int fd;
  private final Calls calls;
  private final SocketCalls socketCalls;

  /**
   * Asks about a descriptor.
   *
   * @throws IOException if this is no 64-bit Linux
   */
  RawSocket(int fd) throws IOException {
    this.fd = fd;
    this.socketCalls = SocketCalls.linked();
    this.calls = Calls.LINKED.orElseThrow();
  }

  /** Opens two Unix stream sockets that are connected to each other; returns the descriptors. */
  static int[] pair() throws IOException {
    SocketCalls calls = SocketCalls.linked();
    try (Arena memory = Arena.ofConfined()) {
      MemorySegment pair = memory.allocate(2 * Integer.BYTES, Integer.BYTES);
      Calls.checked(
          "socketpair",
          "a pair of sockets",
          (_, state) ->
              (int)
                  calls.socketpair.invokeExact(
                      state, AF_UNIX, SOCK_STREAM | PosixFile.O_CLOEXEC, 0, pair));
      return pair.toArray(JAVA_INT);
    }
  }

  private String description() {
    return "descriptor " + fd;
  }

  /** Reads an option of SOL_SOCKET; of SO_LINGER, the seconds, or 0 if it is off. */
  int option(int name) throws PosixException {
    return (int)
        Calls.checked(
            "getsockopt",
            description(),
            (arena, state) -> {
              MemorySegment value = arena.allocate(OPTION_BYTES, Integer.BYTES);
              MemorySegment length = arena.allocateFrom(JAVA_INT, OPTION_BYTES);
              int result =
                  (int) calls.getsockopt.invokeExact(state, fd, SOL_SOCKET, name, value, length);
              boolean isLinger = name == SO_LINGER && value.getAtIndex(JAVA_INT, 0) != 0;
              return result < 0 ? result : value.getAtIndex(JAVA_INT, isLinger ? 1 : 0);
            });
  }

  /**
   * Finds the family of a stream socket.
   *
   * @throws IOException if it is not a socket, or of another type or family
   */
  StandardProtocolFamily streamFamily() throws IOException {
    int type;
    try {
      type = option(SO_TYPE);
    } catch (PosixException failure) {
      throw switch (failure.errno()) {
        case EBADF -> new IOException(description() + " is not open", failure);
        case ENOTSOCK -> new IOException(description() + " is not a socket", failure);
        default -> failure;
      };
    }
    if (type != SOCK_STREAM) {
      throw new IOException(description() + " is not a stream socket");
    }
    return switch (option(SO_DOMAIN)) {
      case AF_UNIX -> StandardProtocolFamily.UNIX;
      case AF_INET -> StandardProtocolFamily.INET;
      case AF_INET6 -> StandardProtocolFamily.INET6;
      default -> throw new IOException(description() + " is neither a TCP nor a Unix socket");
    };
  }

  /** Says whether it listens. */
  boolean isListening() throws PosixException {
    return option(SO_ACCEPTCONN) != 0;
  }

  /** Finds the address that it is bound to. */
  SocketAddress local() throws IOException {
    return name("getsockname", socketCalls.getsockname);
  }

  /**
   * Finds the address of its peer.
   *
   * @throws IOException if it is not connected
   */
  SocketAddress remote() throws IOException {
    try {
      return name("getpeername", socketCalls.getpeername);
    } catch (PosixException failure) {
      if (failure.errno() == Errno.ENOTCONN) {
        throw new IOException(description() + " is not connected", failure);
      }
      throw failure;
    }
  }

  private SocketAddress name(String call, MethodHandle asked) throws IOException {
    try (Arena memory = Arena.ofConfined()) {
      MemorySegment name = memory.allocate(NAME_BYTES, Long.BYTES);
      MemorySegment length = memory.allocateFrom(JAVA_INT, NAME_BYTES);
      Calls.checked(
          call,
          description(),
          (_, state) -> {
            length.set(JAVA_INT, 0, NAME_BYTES);
            return (int) asked.invokeExact(state, fd, name, length);
          });
      return decoded(name.asSlice(0, Math.min(length.get(JAVA_INT, 0), NAME_BYTES)));
    }
  }

  private SocketAddress decoded(MemorySegment name) throws IOException {
    return switch (name.get(JAVA_SHORT, 0)) {
      case AF_INET -> internet(name.asSlice(4, 4), name);
      case AF_INET6 -> internet(name.asSlice(8, 16), name);
      case AF_UNIX -> unix(name.asSlice(2).toArray(JAVA_BYTE));
      default -> throw new IOException(description() + " is neither a TCP nor a Unix socket");
    };
  }

  private static SocketAddress internet(MemorySegment address, MemorySegment name)
      throws UnknownHostException {
    return new InetSocketAddress(
        InetAddress.getByAddress(address.toArray(JAVA_BYTE)),
        Short.toUnsignedInt(name.get(PORT, 2)));
  }

  /** An abstract name, which begins with a zero byte, is written with @ as in unix(7)'s tools. */
  private static SocketAddress unix(byte[] path) {
    boolean isAbstract = path.length > 1 && path[0] == 0;
    int end = isAbstract ? 1 : 0;
    while (end < path.length && path[end] != 0) {
      end++;
    }
    Charset charset = Charset.forName(System.getProperty("sun.jnu.encoding", "UTF-8"));
    return UnixDomainSocketAddress.of(
        isAbstract
            ? "@" + new String(path, 1, end - 1, charset)
            : new String(path, 0, end, charset));
  }

  /** Says whether its calls do not wait (O_NONBLOCK). */
  boolean isNonBlocking() throws PosixException {
    return (flags() & O_NONBLOCK) != 0;
  }

  /** Sets whether its calls wait; other processes that have the socket see it, too. */
  void setNonBlocking(boolean on) throws PosixException {
    int flags = flags();
    int wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    if (wanted != flags) {
      fcntl(F_SETFL, wanted);
    }
  }

  private int flags() throws PosixException {
    return fcntl(F_GETFL, 0);
  }

  /** Makes a second descriptor of it. */
  int duplicate() throws PosixException {
    return fcntl(F_DUPFD_CLOEXEC, 0);
  }

  private int fcntl(int command, int argument) throws PosixException {
    return (int)
        Calls.checked(
            "fcntl",
            description(),
            (_, state) ->
                (int)
                    calls.fcntl.invokeExact(state, fd, command, MemorySegment.ofAddress(argument)));
  }

  /** Puts it in place of another descriptor, which is closed, and closes its own number. */
  void replace(int target) throws PosixException {
    Calls.checked(
        "dup3",
        description(),
        (_, state) -> (int) socketCalls.dup3.invokeExact(state, fd, target, PosixFile.O_CLOEXEC));
    PosixFile.closeDescriptor(calls, fd);
  }
}
