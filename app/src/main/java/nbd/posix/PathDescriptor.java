package nbd.posix;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/**
 * A descriptor of a file or directory that is found, but not opened: no device is woken, and no
 * pipe waited for. Questions about it and a later opening by it concern the same file, whatever
 * becomes of its name meanwhile. It needs Linux with /proc; {@link #of} is empty elsewhere. Source:
 * O_PATH in open(2).
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
   * Finds a path, through symbolic links.
   *
   * @throws PosixException if there is no such file, or permission is denied
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
   * Finds a name in this directory, through symbolic links.
   *
   * @param name in UTF-8, whatever the locale is; not empty, and without NUL
   * @throws PosixException if there is no such file, or permission is denied
   */
  public PathDescriptor resolve(String name) throws PosixException {
    int flags = O_PATH | PosixFile.O_CLOEXEC;
    return new PathDescriptor(calls, PosixFile.openAt(calls, fd, name, flags, name));
  }

  /** A path that opens this file for certain, and by which its attributes are read. */
  public Path descriptorPath() {
    return Path.of("/proc/self/fd/" + fd);
  }

  /** The path at which it is now, without symbolic links. */
  public Path realPath() throws IOException {
    return Files.readSymbolicLink(descriptorPath());
  }

  @Override
  public void close() {
    PosixFile.closeDescriptor(calls, fd);
  }
}
