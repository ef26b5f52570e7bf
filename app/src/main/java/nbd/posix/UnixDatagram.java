package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;
import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.EOFException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.SocketTimeoutException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.locks.LockSupport;

/**
 * Datagrams to Unix sockets, which the JDK cannot send. Any thread may call. Source: the manual
 * page unix(7).
 */
public final class UnixDatagram {
  private static final short AF_UNIX = 1;
  private static final int SOCK_DGRAM = 2;
  private static final long PAUSE_NANOS = 1_000_000;

  /** The longest path of a socket, without the zero byte that may follow it. */
  private static final int PATH_BYTES = 108;

  private UnixDatagram() {}

  /**
   * Sends a datagram.
   *
   * @param address a path, or @ and an abstract name
   * @param text sent in UTF-8
   * @param files sent with it; they stay the caller's
   * @param patience while the receiver's queue is full
   * @throws SocketTimeoutException if the queue stays full for as long
   * @throws IOException if nobody receives at the address, or this is no 64-bit Linux
   */
  public static void send(String address, String text, List<Descriptor> files, Duration patience)
      throws IOException {
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
      MemorySegment message = SocketMessage.of(memory, name, data, files);
      long deadline = System.nanoTime() + patience.toNanos();
      while (calls.send(fd, message, address) < 0) {
        // No call waits for a place in the queue of a socket that this one is not connected to.
        if (System.nanoTime() > deadline) {
          throw new SocketTimeoutException(address + ": the receiver's queue stays full");
        }
        LockSupport.parkNanos(PAUSE_NANOS);
      }
    } finally {
      PosixFile.closeDescriptor(Calls.LINKED.orElseThrow(), fd);
    }
  }

  /**
   * Sends a datagram with one file, and waits until the receiver has closed it.
   *
   * @param patience for the receiver
   * @throws SocketTimeoutException if it does not close the file in time
   * @throws IOException if nobody receives at the address, or this is no 64-bit Linux
   */
  public static void sendAndWait(String address, String text, Duration patience)
      throws IOException {
    int[] ends = RawSocket.pair();
    try (PassingSocket ours = new PassingSocket(new Descriptor(ends[0]))) {
      try (Descriptor theirs = new Descriptor(ends[1])) {
        send(address, text, List.of(theirs), patience);
      }
      ours.receive(patience).closeFiles();
    } catch (EOFException closed) {
      return;
    }
  }
}
