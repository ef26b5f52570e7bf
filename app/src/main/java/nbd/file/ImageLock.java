package nbd.file;

import java.io.IOException;
import nbd.posix.PosixException;
import nbd.posix.PosixFile;
import org.tinylog.Logger;

/**
 * Says to other programs what is done to an image, and finds out what they do, the way qemu's do:
 * by shared locks on two rows of bytes. A lock in the first row says that the opening does
 * something, one in the second that nobody else may. Whoever opens an image first takes its locks
 * and then looks for the others', so that of two at the same time at least one sees the other.
 * Source: block/file-posix.c of qemu, RAW_LOCK_PERM_BASE; permissions in block-common.h.
 *
 * <p>Opened for writing, nobody else may write; qemu-nbd lets others, but a client that caches
 * would not see it. Opened for reading, the file may be written by others, as with qemu-nbd, but
 * not resized.
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

  private static final Permission[] READER_DOES = {Permission.READ};
  private static final Permission[] READER_EXCLUDES = {Permission.RESIZE};
  private static final Permission[] WRITER_DOES = {Permission.READ, Permission.WRITE};
  private static final Permission[] WRITER_EXCLUDES = {Permission.WRITE, Permission.RESIZE};

  private ImageLock() {}

  /**
   * Takes the locks; they go with the opening.
   *
   * @param name of the file, for messages
   * @throws IOException if another program's say no; the message is for the user. Nothing is held
   *     then
   */
  static void take(PosixFile file, boolean writable, String name) throws IOException {
    Permission[] does = writable ? WRITER_DOES : READER_DOES;
    Permission[] excludes = writable ? WRITER_EXCLUDES : READER_EXCLUDES;
    try {
      for (Permission permission : does) {
        file.lockShared(DOES + permission.bit);
      }
      for (Permission permission : excludes) {
        file.lockShared(EXCLUDES + permission.bit);
      }
      for (Permission permission : does) {
        if (file.isLockedByOthers(EXCLUDES + permission.bit)) {
          throw new LockedException(
              name, "another program uses it and forbids to " + verb(permission) + " it meanwhile");
        }
      }
      for (Permission permission : excludes) {
        if (file.isLockedByOthers(DOES + permission.bit)) {
          throw new LockedException(name, "another program may " + verb(permission) + " it");
        }
      }
    } catch (PosixException failure) {
      switch (failure.errno()) {
        case EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP ->
            Logger.info("{} cannot be locked, so other programs may write it meanwhile", name);
        default -> throw failure;
      }
    } catch (LockedException locked) {
      file.unlock(DOES, PERMISSIONS);
      file.unlock(EXCLUDES, PERMISSIONS);
      throw locked;
    }
  }

  private static String verb(Permission permission) {
    return switch (permission) {
      case READ -> "read";
      case WRITE -> "write";
      case RESIZE -> "resize";
    };
  }

  /** Another program uses the file in a way that does not go with ours. */
  static final class LockedException extends IOException {
    private static final long serialVersionUID = 1;

    private LockedException(String name, String why) {
      super(name + " is in use: " + why + "; end that, or use --force-share if you know better");
    }
  }
}
