package nbd.posix;

import java.io.IOException;
import java.util.Map;

/** A call of the system failed; the message has the call, the errno's name and the file. */
public final class PosixException extends IOException {
  private static final long serialVersionUID = 1;

  private static final Map<Integer, String> NAMES =
      Map.ofEntries(
          Map.entry(1, "EPERM"),
          Map.entry(2, "ENOENT"),
          Map.entry(4, "EINTR"),
          Map.entry(5, "EIO"),
          Map.entry(9, "EBADF"),
          Map.entry(12, "ENOMEM"),
          Map.entry(13, "EACCES"),
          Map.entry(16, "EBUSY"),
          Map.entry(21, "EISDIR"),
          Map.entry(22, "EINVAL"),
          Map.entry(24, "EMFILE"),
          Map.entry(26, "ETXTBSY"),
          Map.entry(27, "EFBIG"),
          Map.entry(28, "ENOSPC"),
          Map.entry(30, "EROFS"),
          Map.entry(95, "EOPNOTSUPP"),
          Map.entry(122, "EDQUOT"));

  private final int errno;

  PosixException(String call, int errno, String file) {
    super(file + ": " + call + ": " + NAMES.getOrDefault(errno, "errno " + errno));
    this.errno = errno;
  }

  /** The number, as the platform counts. */
  public int errno() {
    return errno;
  }
}
