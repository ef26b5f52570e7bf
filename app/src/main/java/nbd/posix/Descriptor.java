package nbd.posix;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.channels.NetworkChannel;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * An open file of the system that no channel has, until somebody {@linkplain #release takes} its
 * number or closes it. Any thread may use it, one at a time. Linux only.
 */
public final class Descriptor implements AutoCloseable {
  private static final int F_DUPFD_CLOEXEC = 1030;
  private static final int MFD_CLOEXEC = 1;
  private static final int NONE = -1;

  private int number;

  /** Owns a descriptor from now on. */
  Descriptor(int number) {
    this.number = number;
  }

  /** Owns a descriptor that another process has passed, by its number. */
  public static Descriptor own(int passed) {
    return new Descriptor(passed);
  }

  /**
   * Opens a channel's socket once more: the socket stays open when the channel is closed.
   *
   * @throws IOException if the channel is closed, or there are too many descriptors
   */
  public static Descriptor of(NetworkChannel socket) throws IOException {
    Descriptor copy = copyOf(SocketDescriptor.find(socket));
    if (!socket.isOpen()) {
      // It may be another file's.
      copy.close();
      throw new IOException("the socket is closed");
    }
    return copy;
  }

  /** Opens a file once more. */
  static Descriptor copyOf(int number) throws PosixException {
    Calls calls =
        Calls.LINKED.orElseThrow(() -> new PosixException("fcntl", Errno.ENOSYS, "a descriptor"));
    return new Descriptor(
        (int)
            Calls.checked(
                "fcntl",
                "descriptor " + number,
                (_, state) ->
                    (int)
                        calls.fcntl.invokeExact(
                            state, number, F_DUPFD_CLOEXEC, MemorySegment.NULL)));
  }

  /**
   * Makes a file that is in memory only.
   *
   * @param name for people, in /proc/PID/fd
   * @throws IOException if there is no memory, or this is no 64-bit Linux
   */
  public static Descriptor ofMemory(String name, byte[] content) throws IOException {
    SocketCalls calls = SocketCalls.linked();
    Descriptor made =
        new Descriptor(
            (int)
                Calls.checked(
                    "memfd_create",
                    name,
                    (arena, state) ->
                        (int)
                            calls.memfdCreate.invokeExact(
                                state, arena.allocateFrom(name), MFD_CLOEXEC)));
    boolean written = false;
    try {
      Files.write(made.path(), content);
      written = true;
      return made;
    } finally {
      if (!written) {
        made.close();
      }
    }
  }

  /** Reads a regular file from its start, whatever the descriptor's position is. */
  public byte[] content() throws IOException {
    return Files.readAllBytes(path());
  }

  /** Returns the name by which this process opens the file anew. */
  public Path path() {
    return Path.of("/proc/self/fd/" + number());
  }

  /** Opens the file once more. */
  public Descriptor copy() throws PosixException {
    return copyOf(number());
  }

  /** Returns the number, which stays owned here. */
  public int number() {
    if (number == NONE) {
      throw new IllegalStateException("closed or released");
    }
    return number;
  }

  /** Returns the number, which the caller owns from now on. */
  public int release() {
    int released = number();
    number = NONE;
    return released;
  }

  /** Returns the same file as another object's, which owns it from now on. */
  public Descriptor handedOn() {
    return new Descriptor(release());
  }

  /** Closes the file, unless it was released or closed before. */
  @Override
  public void close() {
    if (number != NONE) {
      Calls.LINKED.ifPresent(calls -> PosixFile.closeDescriptor(calls, release()));
    }
  }
}
