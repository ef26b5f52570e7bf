package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.io.IOException;
import java.lang.foreign.MemorySegment;

/**
 * Another process, known by a descriptor, which never stands for a later process of the same ID.
 * Any thread may call. Sources: the manual pages pidfd_open(2), pidfd_getfd(2).
 */
public final class OtherProcess implements AutoCloseable {
  private static final long SYS_PIDFD_OPEN = 434;
  private static final long SYS_PIDFD_GETFD = 438;
  private static final short POLLIN = 1;
  private static final int POLLFD_BYTES = 8;

  private final SocketCalls calls;
  private final String name;
  private final int fd;

  private OtherProcess(SocketCalls calls, String name, int fd) {
    this.calls = calls;
    this.name = name;
    this.fd = fd;
  }

  /**
   * Opens a process.
   *
   * @param pid its process ID
   * @throws IOException if there is no such process, or no such call: Linux 5.3 has it
   */
  public static OtherProcess open(long pid) throws IOException {
    SocketCalls calls = SocketCalls.linked();
    String name = "process " + pid;
    long fd =
        Calls.checked(
            "pidfd_open",
            name,
            (_, state) -> (long) calls.syscall.invokeExact(state, SYS_PIDFD_OPEN, pid, 0L, 0L));
    return new OtherProcess(calls, name, (int) fd);
  }

  /**
   * Makes a descriptor for what one of the process's descriptors stands for.
   *
   * @param number of the process's descriptor
   * @return a descriptor of this process
   * @throws PosixException EBADF if it is not open; EPERM without the right to trace the process;
   *     ENOSYS before Linux 5.6
   */
  public int duplicate(int number) throws PosixException {
    return (int)
        Calls.checked(
            "pidfd_getfd",
            "descriptor " + number + " of " + name,
            (_, state) ->
                (long)
                    calls.syscall.invokeExact(
                        state, SYS_PIDFD_GETFD, (long) fd, (long) number, 0L));
  }

  /** Waits for the process's end; not for virtual threads, whose carrier would wait too. */
  public void awaitEnd() throws PosixException {
    Calls.checked(
        "poll",
        name,
        (arena, state) -> {
          MemorySegment entry = arena.allocate(POLLFD_BYTES, Integer.BYTES);
          entry.set(JAVA_INT, 0, fd);
          entry.set(JAVA_SHORT, Integer.BYTES, POLLIN);
          return (int) calls.poll.invokeExact(state, entry, 1L, -1);
        });
  }

  @Override
  public void close() {
    PosixFile.closeDescriptor(Calls.LINKED.orElseThrow(), fd);
  }
}
