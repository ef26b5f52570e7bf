package nbd.rbd;

import nbd.protocol.NbdError;
import nbd.protocol.NbdException;

/** A call of librbd or librados that failed. The message names the storage, the call and why. */
final class RbdException extends NbdException {
  static final int ENOENT = 2;
  static final int EINVAL = 22;
  static final int ERANGE = 34;

  /** The number of EBLOCKLISTED, too. */
  static final int ESHUTDOWN = 108;

  static final int ETIMEDOUT = 110;

  private static final long serialVersionUID = 1;

  /**
   * Makes one.
   *
   * @param what the storage and the call
   * @param errno of Linux
   */
  RbdException(String what, int errno) {
    super(error(errno), what + ": " + reason(errno), "the Ceph cluster failed: " + reason(errno));
  }

  private static NbdError error(int errno) {
    return switch (errno) {
      case 1, 13, 30 -> NbdError.EPERM;
      case 12 -> NbdError.ENOMEM;
      case 28, 122 -> NbdError.ENOSPC;
      case 95 -> NbdError.ENOTSUP;
      default -> NbdError.EIO;
    };
  }

  private static String reason(int errno) {
    return switch (errno) {
      case 1 -> "not permitted to this user of the cluster (EPERM)";
      case ENOENT -> "not there (ENOENT)";
      case 12 -> "no memory (ENOMEM)";
      case 13 -> "permission denied (EACCES)";
      case 16 -> "in use (EBUSY)";
      case EINVAL -> "not possible (EINVAL)";
      case 28 -> "no space is left in the cluster (ENOSPC)";
      case 30 -> "read-only (EROFS)";
      case 95 -> "not supported (EOPNOTSUPP)";
      case ESHUTDOWN -> "the cluster has shut this client out (EBLOCKLISTED)";
      case ETIMEDOUT -> "the cluster has not answered in time (ETIMEDOUT)";
      case 122 -> "a quota is used up (EDQUOT)";
      default -> "errno " + errno;
    };
  }
}
