package nbd.file;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;
import nbd.storage.Extent;
import nbd.storage.Handle;

/**
 * A walk through a file's data and holes, which takes as many steps as extents are wanted, however
 * many the file has.
 */
final class FileExtents {
  private static final long PAGE = 4096;

  private final OpenFile file;
  private final long size;

  /**
   * Walks through a file.
   *
   * @param size with which it is served; the file may have become shorter or longer
   */
  FileExtents(OpenFile file, long size) {
    this.file = file;
    this.size = size;
  }

  /** Finds extents as {@link Handle#extents} does; may wait for the disk at every step. */
  List<Extent> of(long offset, long length, int most) throws IOException {
    List<Extent> found = new ArrayList<>();
    for (long at = offset; at < offset + length && found.size() < most; ) {
      Extent next = next(at);
      next.appendTo(found);
      at += next.length();
    }
    return found;
  }

  private Extent next(long at) throws IOException {
    OptionalLong data = file.nextData(at);
    // A hole without data behind it ends with the file, whatever the size was.
    long dataStart = Math.min(data.isPresent() ? data.getAsLong() : file.size(), size);
    if (dataStart > at) {
      return Extent.hole(dataStart - at);
    }
    // Past the end of a truncated file reads fail, so it is no hole there.
    return Extent.data((data.isPresent() ? endOfData(at) : size) - at);
  }

  private long endOfData(long at) throws IOException {
    long hole = file.nextHole(at).orElse(size);
    // The data found a moment ago may have been given back: a page of it is always safe.
    return Math.min(hole > at ? hole : (at / PAGE + 1) * PAGE, size);
  }
}
