package nbd.posix;

import java.io.IOException;
import java.util.Map;

/** A call of the system failed; the message has the call, the errno's name and the file. */
public final class PosixException extends IOException {
  private static final long serialVersionUID = 1;

  /** errno values of Linux that callers tell apart. */
  public static final int EPERM = 1;

  /** There is no such file. */
  public static final int ENOENT = 2;

  static final int EINTR = 4;

  /** The device failed. */
  public static final int EIO = 5;

  /** It has no such part: no data from there on, or no device. */
  public static final int ENXIO = 6;

  /** Not enough memory. */
  public static final int ENOMEM = 12;

  /** Permissions forbid it. */
  public static final int EACCES = 13;

  static final int ENODEV = 19;

  /** The call does not go with this file, or with these arguments. */
  public static final int EINVAL = 22;

  /** No such call for this device. */
  public static final int ENOTTY = 25;

  /** The file would become larger than is allowed. */
  public static final int EFBIG = 27;

  /** No space is left. */
  public static final int ENOSPC = 28;

  /** The file system is read-only. */
  public static final int EROFS = 30;

  /** The name is too long. */
  public static final int ENAMETOOLONG = 36;

  /** No locks are to be had. */
  public static final int ENOLCK = 37;

  /** The system has no such call. */
  public static final int ENOSYS = 38;

  /** Symbolic links lead in a circle. */
  public static final int ELOOP = 40;

  /** The file system has no such operation. */
  public static final int EOPNOTSUPP = 95;

  /** The user's quota is used up. */
  public static final int EDQUOT = 122;

  private static final Map<Integer, String> NAMES =
      Map.ofEntries(
          Map.entry(EPERM, "EPERM"),
          Map.entry(ENOENT, "ENOENT"),
          Map.entry(EINTR, "EINTR"),
          Map.entry(EIO, "EIO"),
          Map.entry(ENXIO, "ENXIO"),
          Map.entry(9, "EBADF"),
          Map.entry(11, "EAGAIN"),
          Map.entry(ENOMEM, "ENOMEM"),
          Map.entry(EACCES, "EACCES"),
          Map.entry(14, "EFAULT"),
          Map.entry(16, "EBUSY"),
          Map.entry(ENODEV, "ENODEV"),
          Map.entry(20, "ENOTDIR"),
          Map.entry(21, "EISDIR"),
          Map.entry(EINVAL, "EINVAL"),
          Map.entry(23, "ENFILE"),
          Map.entry(24, "EMFILE"),
          Map.entry(ENOTTY, "ENOTTY"),
          Map.entry(26, "ETXTBSY"),
          Map.entry(EFBIG, "EFBIG"),
          Map.entry(ENOSPC, "ENOSPC"),
          Map.entry(EROFS, "EROFS"),
          Map.entry(ENAMETOOLONG, "ENAMETOOLONG"),
          Map.entry(ENOLCK, "ENOLCK"),
          Map.entry(ENOSYS, "ENOSYS"),
          Map.entry(ELOOP, "ELOOP"),
          Map.entry(75, "EOVERFLOW"),
          Map.entry(EOPNOTSUPP, "EOPNOTSUPP"),
          Map.entry(116, "ESTALE"),
          Map.entry(EDQUOT, "EDQUOT"));

  private final int errno;

  /**
   * Makes one; tests do so to inject a failure.
   *
   * @param call what failed
   * @param errno as the platform counts
   * @param file of which it was called
   */
  public PosixException(String call, int errno, String file) {
    super(file + ": " + call + ": " + name(errno));
    this.errno = errno;
  }

  private static String name(int errno) {
    return NAMES.getOrDefault(errno, "errno " + errno);
  }

  /** The number, as the platform counts. */
  public int errno() {
    return errno;
  }

  /** The errno's name, such as ENOSPC. */
  public String errnoName() {
    return name(errno);
  }

  /** Whether it says that the system, the file system or the device has no such operation. */
  public boolean isUnsupported() {
    return errno == EOPNOTSUPP || errno == ENOSYS || errno == ENOTTY || errno == ENODEV;
  }
}
