package nbd.posix;

import java.io.IOException;

/** A call of the system that failed. The message names the file, the call and the errno. */
public final class PosixException extends IOException {
  private static final long serialVersionUID = 1;

  private final Errno errno;
  private final String errnoName;

  /**
   * Makes one as the system would.
   *
   * @param call that failed
   * @param file of which it was called
   */
  public PosixException(String call, Errno errno, String file) {
    this(call, errno.number, file);
  }

  PosixException(String call, int number, String file) {
    super(file + ": " + call + ": " + name(number));
    errno = Errno.of(number);
    errnoName = name(number);
  }

  private static String name(int number) {
    Errno errno = Errno.of(number);
    return errno == Errno.UNKNOWN ? "errno " + number : errno.name();
  }

  /** The error's number. */
  public Errno errno() {
    return errno;
  }

  /** Its name, such as ENOSPC; "errno 77" for one without a name here. */
  public String errnoName() {
    return errnoName;
  }

  /** Says whether the system, the file system or the device has no such operation. */
  public boolean isUnsupported() {
    return switch (errno) {
      case EOPNOTSUPP, ENOSYS, ENOTTY, ENODEV -> true;
      default -> false;
    };
  }
}
