package nbd.file;

import java.io.IOException;
import nbd.file.OpenFile.Traits;

/** The part of an open file that differs between regular files and block devices. */
interface Space {
  /** The size now. */
  long size() throws IOException;

  /**
   * The file's traits.
   *
   * @param writesDurably whether it is open to write through to the disk
   */
  Traits traits(boolean writesDurably) throws IOException;

  /** Discards as {@link OpenFile#discard} does. */
  void discard(long offset, long length) throws IOException;

  /** Zeroes as {@link OpenFile#zero} does. */
  boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast) throws IOException;
}
