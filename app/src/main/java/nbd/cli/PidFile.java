package nbd.cli;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static java.nio.file.LinkOption.NOFOLLOW_LINKS;
import static java.nio.file.StandardOpenOption.APPEND;
import static java.nio.file.StandardOpenOption.CREATE;
import static java.nio.file.StandardOpenOption.TRUNCATE_EXISTING;
import static java.nio.file.StandardOpenOption.WRITE;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.Optional;
import java.util.Set;

/**
 * The file with this server's process ID. A process ID that another server left in it is replaced;
 * a file with anything else, a directory, a block device or a symbolic link is refused. A character
 * device or a pipe gets the process ID and stays.
 */
final class PidFile {
  /** Directories of symbolic links to the files that the process has open. */
  private static final Set<Path> OPEN_FILES =
      Set.of(Path.of("/dev"), Path.of("/dev/fd"), Path.of("/proc/self/fd"));

  /** Longer than any process ID. */
  private static final int LONGEST = 20;

  private final Path path;
  private final String content = ProcessHandle.current().pid() + "\n";
  private Optional<OwnFile> own = Optional.empty();

  PidFile(Path path) {
    this.path = path;
  }

  /**
   * Writes the process ID.
   *
   * @throws IOException with a message for the user
   */
  void write() throws IOException {
    try {
      if (isStream()) {
        Files.writeString(path, content, ISO_8859_1, WRITE, APPEND);
        return;
      }
      refuseUnlessPidFile();
      Files.writeString(
          path, content, ISO_8859_1, WRITE, CREATE, TRUNCATE_EXISTING, NOFOLLOW_LINKS);
      own = Optional.of(OwnFile.of(path));
    } catch (IOException failure) {
      throw new IOException(
          "the pid file %s cannot be written: %s".formatted(path, Failure.reason(failure)),
          failure);
    }
  }

  /** True for a pipe, a character device, and a file that is open already. */
  private boolean isStream() throws IOException {
    Path parent = path.toAbsolutePath().getParent();
    boolean isOpen = parent != null && OPEN_FILES.contains(parent);
    try {
      int type = OwnFile.type(path, isOpen ? new LinkOption[0] : new LinkOption[] {NOFOLLOW_LINKS});
      return type == OwnFile.CHARACTER_DEVICE
          || type == OwnFile.PIPE
          || (isOpen && Files.isSymbolicLink(path) && Files.isRegularFile(path));
    } catch (NoSuchFileException absent) {
      return false;
    }
  }

  private void refuseUnlessPidFile() throws IOException {
    BasicFileAttributes existing;
    try {
      existing = Files.readAttributes(path, BasicFileAttributes.class, NOFOLLOW_LINKS);
    } catch (NoSuchFileException absent) {
      return;
    }
    if (existing.isSymbolicLink()) {
      throw new IOException("it is a symbolic link; name the file itself");
    }
    if (!existing.isRegularFile()) {
      throw new IOException("it exists and is not a regular file");
    }
    if (existing.size() > LONGEST || !readContent().matches("\\d*\\s*")) {
      throw new IOException("it exists and holds something other than a process ID");
    }
  }

  private String readContent() throws IOException {
    return Files.readString(path, ISO_8859_1);
  }

  /** Removes the file, unless it was not written, or another server has written its own since. */
  void remove() throws IOException {
    if (own.isPresent() && own.get().isInPlace() && readContent().equals(content)) {
      own.get().remove();
    }
  }
}
