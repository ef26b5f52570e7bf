package nbd.posix;

/** An error number of Linux, by its name in errno(3); the same on x86-64 and AArch64. */
public enum Errno {
  /** Any that is not listed here. */
  UNKNOWN(0),
  EPERM(1),
  ENOENT(2),
  EINTR(4),
  EIO(5),
  ENXIO(6),
  EBADF(9),
  EAGAIN(11),
  ENOMEM(12),
  EACCES(13),
  EFAULT(14),
  EBUSY(16),
  ENODEV(19),
  ENOTDIR(20),
  EISDIR(21),
  EINVAL(22),
  ENFILE(23),
  EMFILE(24),
  ENOTTY(25),
  ETXTBSY(26),
  EFBIG(27),
  ENOSPC(28),
  EROFS(30),
  ENAMETOOLONG(36),
  ENOLCK(37),
  ENOSYS(38),
  ELOOP(40),
  EOVERFLOW(75),
  ENOTSOCK(88),
  EOPNOTSUPP(95),
  ECONNRESET(104),
  ENOTCONN(107),
  ESTALE(116),
  EDQUOT(122);

  final int number;

  Errno(int number) {
    this.number = number;
  }

  static Errno of(int number) {
    for (Errno known : values()) {
      if (known.number == number) {
        return known;
      }
    }
    return UNKNOWN;
  }
}
