package nbd.cli;

import static java.nio.file.LinkOption.NOFOLLOW_LINKS;

import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.Objects;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * A file, socket or directory that this server made. Its name may stand for another server's by the
 * time it is removed; that one stays.
 *
 * @param path its name
 * @param key which no other file has at the same time (device and inode); null where the file
 *     system has none
 */
record OwnFile(Path path, @Nullable Object key) {
  /**
   * Remembers what was just made.
   *
   * @throws IOException if it is gone already
   */
  static OwnFile of(Path path) throws IOException {
    return new OwnFile(path, attributes(path).fileKey());
  }

  /** Whether the name still stands for it. */
  boolean isInPlace() throws IOException {
    try {
      return Objects.equals(attributes(path).fileKey(), key);
    } catch (NoSuchFileException gone) {
      return false;
    }
  }

  /** Removes it, unless something else has its name by now. */
  void remove() throws IOException {
    if (isInPlace()) {
      Files.deleteIfExists(path);
    }
  }

  /** The attributes of what has this name; of a symbolic link, the link's own. */
  private static BasicFileAttributes attributes(Path path) throws IOException {
    return Files.readAttributes(path, BasicFileAttributes.class, NOFOLLOW_LINKS);
  }

  /** The reason of a failure in words, for a message that names the file itself. */
  static String reason(IOException failure) {
    return switch (failure) {
      case AccessDeniedException denied -> "permission denied";
      case NoSuchFileException missing -> "no such file or directory";
      case FileSystemException other when other.getReason() != null ->
          Optional.ofNullable(other.getReason()).orElseThrow();
      default -> String.valueOf(failure.getMessage());
    };
  }
}
