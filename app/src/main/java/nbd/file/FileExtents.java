package nbd.file;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;
import nbd.storage.Extent;
import nbd.storage.Handle;

/**
 * Finds out where a file's data and holes are, from one to the next: as many steps as extents are
 * wanted, however many the file has.
 */
final class FileExtents {
  private static final long PAGE = 4096;

  private final OpenFile file;
  private final long size;
  private final List<Extent> found = new ArrayList<>();

  /**
   * Asks a file.
   *
   * @param size as it is served; the file may have become shorter or longer
   */
  FileExtents(OpenFile file, long size) {
    this.file = file;
    this.size = size;
  }

  /** As {@link Handle#extents}; may wait for the disk, at every step. */
  List<Extent> of(long offset, long length, int most) throws IOException {
    long at = offset;
    long end = offset + length;
    while (at < end && found.size() < most) {
      OptionalLong data = file.nextData(at);
      long dataStart = Math.min(data.isPresent() ? data.getAsLong() : endOfHole(), size);
      if (dataStart > at) {
        at = add(Extent.hole(dataStart - at), at);
      } else if (data.isPresent()) {
        at = add(Extent.data(endOfData(at) - at), at);
      } else {
        // Past the end of a file that was truncated: a read there fails, so it is no hole.
        at = add(Extent.data(size - at), at);
      }
    }
    return found;
  }

  /** Without data behind it a hole reaches to the end; but not of a size that is no more. */
  private long endOfHole() throws IOException {
    return file.size();
  }

  private long endOfData(long at) throws IOException {
    long hole = file.nextHole(at).orElse(size);
    // Data that was there a moment ago may have been given back: a little of it is always safe.
    return Math.min(hole > at ? hole : (at / PAGE + 1) * PAGE, size);
  }

  private long add(Extent extent, long at) {
    extent.appendTo(found);
    return at + extent.length();
  }
}
