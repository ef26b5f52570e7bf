package nbd.client;

import java.util.ArrayList;
import java.util.List;
import nbd.protocol.BaseAllocation;
import nbd.storage.Extent;

/**
 * The extents of an answer to BLOCK_STATUS, alike neighbours made one, as many as are wanted. Used
 * by one thread at a time.
 */
final class ExtentList {
  private final int most;

  /** How much of the range is left behind the last extent, in bytes; it may reach past it. */
  private long asked;

  private final List<Extent> extents = new ArrayList<>();

  /** How much of the export is left behind the last extent, in bytes. */
  private long left;

  private boolean full;

  /**
   * Gathers extents.
   *
   * @param most how many are wanted
   * @param asked how long the range is that was asked for, in bytes
   * @param left how much of the export there is from the first one on, in bytes
   */
  ExtentList(int most, long asked, long left) {
    this.most = most;
    this.asked = asked;
    this.left = left;
  }

  /**
   * Adds an extent; what is too much is left out, and so is what begins behind the range, which no
   * server should tell of.
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

  /** Whether nothing has come. */
  boolean isEmpty() {
    return extents.isEmpty();
  }

  /** All of them. */
  List<Extent> extents() {
    return List.copyOf(extents);
  }
}
