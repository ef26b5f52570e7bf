package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;
import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * Datagrams to Unix sockets, which the JDK cannot send. Any thread may call. Source: the manual
 * page unix(7).
 */
public final class UnixDatagram {
  private static final short AF_UNIX = 1;
  private static final int SOCK_DGRAM = 2;
  private static final int MSG_NOSIGNAL = 0x4000;

  /** The longest path of a socket, without the zero byte that may follow it. */
  private static final int PATH_BYTES = 108;

  private UnixDatagram() {}

  /**
   * Sends a datagram; waits while the receiver's queue is full.
   *
   * @param address a path, or @ and an abstract name
   * @param text sent in UTF-8
   * @throws IOException if nobody receives at the address, or this is no 64-bit Linux
   */
  public static void send(String address, String text) throws IOException {
    SocketCalls calls = SocketCalls.linked();
    byte[] path = address.getBytes(UTF_8);
    if (path.length == 0 || path.length > PATH_BYTES) {
      throw new IOException(address + ": not the address of a Unix socket");
    }
    if (path[0] == '@') {
      path[0] = 0;
    }
    int fd =
        (int)
            Calls.checked(
                "socket",
                address,
                (_, state) ->
                    (int)
                        calls.socket.invokeExact(
                            state, (int) AF_UNIX, SOCK_DGRAM | PosixFile.O_CLOEXEC, 0));
    try (Arena memory = Arena.ofConfined()) {
      MemorySegment name = memory.allocate(Short.BYTES + path.length, Short.BYTES);
      name.set(JAVA_SHORT, 0, AF_UNIX);
      MemorySegment.copy(path, 0, name, JAVA_BYTE, Short.BYTES, path.length);
      MemorySegment data = memory.allocateFrom(JAVA_BYTE, text.getBytes(UTF_8));
      Calls.checked(
          "sendto",
          address,
          (_, state) ->
              (long)
                  calls.sendto.invokeExact(
                      state, fd, data, data.byteSize(), MSG_NOSIGNAL, name, (int) name.byteSize()));
    } finally {
      PosixFile.closeDescriptor(Calls.LINKED.orElseThrow(), fd);
    }
  }
}
