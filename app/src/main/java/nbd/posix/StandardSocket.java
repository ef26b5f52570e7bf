package nbd.posix;

import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * The socket that is both standard input and standard output, as inetd and libnbd's
 * nbd_connect_command(3) start a server; and a pair of sockets for what has pipes instead.
 */
public final class StandardSocket {
  private static final int INPUT = 0;
  private static final int OUTPUT = 1;
  private static final int ERROR = 2;
  private static final int O_RDWR = 2;

  private StandardSocket() {}

  /** Two sockets that are connected to each other. */
  public record Pair(SocketChannel left, SocketChannel right) {}

  /** Says whether standard input and output are one socket; false where there is no /proc. */
  public static boolean isUsed() {
    String input = target(INPUT);
    return input.startsWith("socket:") && input.equals(target(OUTPUT));
  }

  private static String target(int fd) {
    try {
      return Files.readSymbolicLink(Path.of("/proc/self/fd/" + fd)).toString();
    } catch (IOException | UnsupportedOperationException unknown) {
      return "";
    }
  }

  /**
   * Makes a channel of the socket. If standard error is the same socket, nothing is written there
   * any more: it would be taken for a reply.
   *
   * @throws IOException if it is not a connected TCP or Unix socket, or this is no 64-bit Linux
   */
  public static SocketChannel open() throws IOException {
    if (target(ERROR).equals(target(INPUT))) {
      Calls calls = Calls.LINKED.orElseThrow();
      new RawSocket(PosixFile.openAt(calls, PosixFile.AT_FDCWD, "/dev/null", O_RDWR, "/dev/null"))
          .replace(ERROR);
    }
    return adopted(new RawSocket(INPUT).duplicate());
  }

  /**
   * Opens a pair.
   *
   * @throws IOException if this is no 64-bit Linux
   */
  public static Pair pair() throws IOException {
    int[] ends = RawSocket.pair();
    return new Pair(adopted(ends[0]), adopted(ends[1]));
  }

  private static SocketChannel adopted(int fd) throws IOException {
    boolean done = false;
    try {
      SocketChannel channel = AdoptedSocket.connected(fd);
      done = true;
      return channel;
    } finally {
      if (!done) {
        PosixFile.closeDescriptor(Calls.LINKED.orElseThrow(), fd);
      }
    }
  }
}
