package nbd.file;

import java.io.IOException;
import nbd.file.OpenFile.Traits;
import nbd.posix.PosixException;
import nbd.posix.PosixFile;

/** A regular file's space, which fallocate gives back and zeroes. */
final class FileSpace implements Space {
  private static final int BLOCK = 4096;

  private final PosixFile file;
  private final OptionalCall punchHole;
  private final OptionalCall zeroRange;

  FileSpace(PosixFile file, String name) {
    this.file = file;
    this.punchHole = new OptionalCall(name);
    this.zeroRange = new OptionalCall(name);
  }

  @Override
  public long size() throws IOException {
    return file.size();
  }

  @Override
  public Traits traits(boolean writesDurably) throws IOException {
    return new Traits(knowsHoles(), writesDurably, writesDurably && isFast(), true, false, BLOCK);
  }

  private boolean knowsHoles() {
    try {
      file.nextData(0);
      return true;
    } catch (PosixException failure) {
      return false;
    }
  }

  /** Tries to punch past the end of the file, where nothing is changed. */
  private boolean isFast() throws IOException {
    try {
      return punch(Math.addExact(file.size(), 1L << 40) & -BLOCK, BLOCK);
    } catch (PosixException | ArithmeticException tooFar) {
      return false;
    }
  }

  @Override
  public void discard(long offset, long length) throws IOException {
    punch(offset, length);
  }

  @Override
  public boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast)
      throws IOException {
    return (mayPunch && punch(offset, length))
        || zeroRange.make(() -> file.zeroRange(offset, length));
  }

  private boolean punch(long offset, long length) throws IOException {
    return punchHole.make(() -> file.punchHole(offset, length));
  }
}
