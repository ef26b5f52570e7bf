package nbd.posix;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/**
 * A place in the file system that is held, but not opened: nothing is read, no device is woken and
 * no pipe waited for. What is found out about it and what is opened later is the same file,
 * whatever becomes of its name meanwhile. Needs Linux with /proc; {@link #of} is empty elsewhere.
 * Source: O_PATH in open(2).
 */
public final class PathDescriptor implements AutoCloseable {
  private static final int O_PATH = 0x200000;

  private final Calls calls;
  private final int fd;

  private PathDescriptor(Calls calls, int fd) {
    this.calls = calls;
    this.fd = fd;
  }

  /**
   * Takes hold of a path.
   *
   * @throws PosixException if there is nothing, or it may not be reached
   */
  public static Optional<PathDescriptor> of(Path path) throws PosixException {
    if (Calls.LINKED.isEmpty() || !Files.isDirectory(Path.of("/proc/self/fd"))) {
      return Optional.empty();
    }
    Calls calls = Calls.LINKED.get();
    int flags = O_PATH | PosixFile.O_CLOEXEC;
    int fd = PosixFile.openAt(calls, PosixFile.AT_FDCWD, path.toString(), flags, path.toString());
    return Optional.of(new PathDescriptor(calls, fd));
  }

  /**
   * Takes hold of what a name in this directory stands for, by way of symbolic links, too.
   *
   * @param name in UTF-8, whatever the locale is; not empty, and without NUL
   * @throws PosixException if there is nothing, or it may not be reached
   */
  public PathDescriptor resolve(String name) throws PosixException {
    int flags = O_PATH | PosixFile.O_CLOEXEC;
    return new PathDescriptor(calls, PosixFile.openAt(calls, fd, name, flags, name));
  }

  /** By which it is opened, and its attributes are read: of this file for certain. */
  public Path descriptorPath() {
    return Path.of("/proc/self/fd/" + fd);
  }

  /**
   * Where it is now, without symbolic links.
   *
   * @throws IOException if the system does not tell
   */
  public Path realPath() throws IOException {
    return Files.readSymbolicLink(descriptorPath());
  }

  @Override
  public void close() {
    PosixFile.closeDescriptor(calls, fd);
  }
}
