package nbd.cli;

import static java.nio.file.LinkOption.NOFOLLOW_LINKS;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * A file, socket or directory that this server made. By the time it is removed, another server's
 * file may have its name; that file stays.
 *
 * @param key identifies the file (device and inode); null where the file system has no such key
 */
record OwnFile(Path path, @Nullable Object key) {
  /** The types of {@link #type}, as in stat(2). */
  static final int CHARACTER_DEVICE = 0020000;

  static final int PIPE = 0010000;
  static final int SOCKET = 0140000;
  private static final int TYPES = 0170000;

  /**
   * Remembers a file that was just made.
   *
   * @throws IOException if it is gone already
   */
  static OwnFile of(Path path) throws IOException {
    return new OwnFile(path, attributes(path).fileKey());
  }

  /** True if the name still stands for this file. */
  boolean isInPlace() throws IOException {
    try {
      return Objects.equals(attributes(path).fileKey(), key);
    } catch (NoSuchFileException gone) {
      return false;
    }
  }

  /** Removes the file, unless another one has its name. */
  void remove() throws IOException {
    if (isInPlace()) {
      Files.deleteIfExists(path);
    }
  }

  private static BasicFileAttributes attributes(Path path) throws IOException {
    return Files.readAttributes(path, BasicFileAttributes.class, NOFOLLOW_LINKS);
  }

  /** Finds the type of any file. */
  static int type(Path path, LinkOption... links) throws IOException {
    return (int) Files.getAttribute(path, "unix:mode", links) & TYPES;
  }
}
