package nbd.file;

import java.io.IOException;
import java.util.List;
import java.util.Locale;
import nbd.posix.PosixException;
import nbd.posix.PosixFile;
import org.tinylog.Logger;

/**
 * The locks by which programs that open an image tell each other what they do to it, as qemu's do:
 * shared locks on two rows of bytes. A lock in the first row says that its owner does something,
 * one in the second that nobody else may. A program first takes its locks and then looks for the
 * others', so that of two at the same time at least one sees the other. Source: block/file-posix.c
 * of qemu, RAW_LOCK_PERM_BASE; permissions in block-common.h.
 *
 * <p>While this server writes an image, nobody else may; qemu-nbd allows it, but a client that
 * caches would miss the other's writes. While it reads, others may write the image, as with
 * qemu-nbd, but not resize it.
 */
final class ImageLock {
  private static final int DOES = 100;
  private static final int EXCLUDES = 200;
  private static final int PERMISSIONS = 32;

  private enum Permission {
    READ(0),
    WRITE(1),
    RESIZE(3);

    private final int bit;

    Permission(int bit) {
      this.bit = bit;
    }
  }

  private ImageLock() {}

  /**
   * Takes the locks, which last as long as the opening.
   *
   * @param name of the file, for messages
   * @throws IOException with a message for the user if another program's locks forbid it; no lock
   *     is held then
   */
  static void take(PosixFile file, boolean writable, String name) throws IOException {
    List<Permission> does =
        writable ? List.of(Permission.READ, Permission.WRITE) : List.of(Permission.READ);
    List<Permission> excludes =
        writable ? List.of(Permission.WRITE, Permission.RESIZE) : List.of(Permission.RESIZE);
    try {
      for (Permission permission : does) {
        file.lockShared(DOES + permission.bit);
      }
      for (Permission permission : excludes) {
        file.lockShared(EXCLUDES + permission.bit);
      }
      refuseIfLocked(file, EXCLUDES, does, name, "forbids others to");
      refuseIfLocked(file, DOES, excludes, name, "may");
    } catch (PosixException failure) {
      switch (failure.errno()) {
        case EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP ->
            Logger.info("{} cannot be locked, so other programs may write it meanwhile", name);
        default -> throw failure;
      }
    }
  }

  private static void refuseIfLocked(
      PosixFile file, int row, List<Permission> permissions, String name, String does)
      throws IOException {
    for (Permission permission : permissions) {
      if (file.isLockedByOthers(row + permission.bit)) {
        file.unlock(DOES, PERMISSIONS);
        file.unlock(EXCLUDES, PERMISSIONS);
        throw new IOException(
            "%s is in use: another program %s %s it; stop it, or use --force-share if you are sure"
                .formatted(name, does, permission.name().toLowerCase(Locale.ROOT)));
      }
    }
  }
}
