package nbd.file;

import java.io.IOException;
import nbd.posix.PosixException;
import nbd.posix.PosixFile;
import org.tinylog.Logger;

/** A regular file's space, by fallocate. What the file system lacks is asked for once. */
final class FileSpace implements Space {
  private final PosixFile file;
  private final String name;
  private volatile boolean cannotPunch;
  private volatile boolean cannotZero;

  FileSpace(PosixFile file, String name) {
    this.file = file;
    this.name = name;
  }

  @Override
  public void discard(long offset, long length) throws IOException {
    punch(offset, length);
  }

  @Override
  public boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast)
      throws IOException {
    return (mayPunch && punch(offset, length)) || zeroRange(offset, length);
  }

  private boolean punch(long offset, long length) throws IOException {
    if (cannotPunch) {
      return false;
    }
    try {
      file.punchHole(offset, length);
      return true;
    } catch (PosixException failure) {
      cannotPunch = isMissing(failure);
      return false;
    }
  }

  private boolean zeroRange(long offset, long length) throws IOException {
    if (cannotZero) {
      return false;
    }
    try {
      file.zeroRange(offset, length);
      return true;
    } catch (PosixException failure) {
      cannotZero = isMissing(failure);
      return false;
    }
  }

  private boolean isMissing(PosixException failure) throws PosixException {
    if (!failure.isUnsupported()) {
      throw failure;
    }
    Logger.debug("{}: the file system lacks it: {}", name, failure.getMessage());
    return true;
  }

  /** Asked of a place past the end, where there is nothing to be changed. */
  @Override
  public boolean isFast() throws IOException {
    try {
      return punch(Math.addExact(file.size(), 1L << 40) & -4096, 4096);
    } catch (PosixException | ArithmeticException tooFar) {
      return false;
    }
  }
}
