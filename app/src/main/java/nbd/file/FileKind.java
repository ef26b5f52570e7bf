package nbd.file;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;

/** The kind of file at a path; asked without opening it, so no pipe is waited for. */
public enum FileKind {
  REGULAR,
  DIRECTORY,
  BLOCK_DEVICE,
  CHARACTER_DEVICE,
  /** A pipe or a socket. */
  OTHER;

  private static final int TYPE = 0170000;
  private static final int BLOCK = 0060000;
  private static final int CHARACTER = 0020000;

  /** Looks, through symbolic links. */
  public static FileKind of(Path path) throws IOException {
    BasicFileAttributes attributes = Files.readAttributes(path, BasicFileAttributes.class);
    if (attributes.isRegularFile()) {
      return REGULAR;
    }
    if (attributes.isDirectory()) {
      return DIRECTORY;
    }
    if (!path.getFileSystem().supportedFileAttributeViews().contains("unix")) {
      return OTHER;
    }
    return switch ((int) Files.getAttribute(path, "unix:mode") & TYPE) {
      case BLOCK -> BLOCK_DEVICE;
      case CHARACTER -> CHARACTER_DEVICE;
      default -> OTHER;
    };
  }
}
