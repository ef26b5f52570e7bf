package nbd.client;

import java.util.ArrayList;
import java.util.List;
import nbd.protocol.BaseAllocation;
import nbd.storage.Extent;

/**
 * The extents of a reply to BLOCK_STATUS, up to a limit, with alike neighbours merged. Used by one
 * thread at a time.
 */
final class ExtentList {
  private final int most;

  /** Bytes of the range behind the last extent; negative if that reaches past the range. */
  private long asked;

  private final List<Extent> extents = new ArrayList<>();

  /** Bytes of the export behind the last extent. */
  private long left;

  private boolean full;

  /**
   * Begins without extents.
   *
   * @param most limit on their number
   * @param asked length of the range in the request, in bytes
   * @param left length of the export from the start of the range, in bytes
   */
  ExtentList(int most, long asked, long left) {
    this.most = most;
    this.asked = asked;
    this.left = left;
  }

  /**
   * Adds an extent, unless there are enough, or it begins behind the range, where no server should
   * name one.
   *
   * @param length in bytes; unsigned, and not 0
   */
  void add(long length, long status) {
    long inside = length < 0 ? left : Math.min(length, left);
    if (full || inside == 0 || asked <= 0) {
      return;
    }
    Extent extent =
        new Extent(inside, BaseAllocation.isHole(status), BaseAllocation.isZero(status));
    if (extents.size() == most && !extents.getLast().isLike(extent)) {
      full = true;
      return;
    }
    extent.appendTo(extents);
    left -= inside;
    asked -= inside;
  }

  /** Says whether there is no extent yet. */
  boolean isEmpty() {
    return extents.isEmpty();
  }

  /** Returns a copy of the extents. */
  List<Extent> extents() {
    return List.copyOf(extents);
  }
}
