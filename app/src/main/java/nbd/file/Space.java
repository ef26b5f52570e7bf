package nbd.file;

import java.io.IOException;

/** The ways of a file or a device to give storage back and to make zeroes. */
interface Space {
  /** As {@link OpenFile#discard}. */
  void discard(long offset, long length) throws IOException;

  /** As {@link OpenFile#zero}. */
  boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast) throws IOException;

  /** As {@link OpenFile.Traits#fastZero}. */
  boolean isFast() throws IOException;
}
