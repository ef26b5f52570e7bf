package nbd.client;

import static org.assertj.core.api.Assertions.assertThat;

import nbd.storage.Extent;
import org.junit.jupiter.api.Test;

/** Limits on a server's extents. */
final class ExtentListTest {
  private static final int HOLE_AND_ZERO = 3;

  @Test
  void theLastExtentMayReachPastTheRange() {
    ExtentList extents = new ExtentList(8, 100, 1000);
    extents.add(60, 0);
    extents.add(60, HOLE_AND_ZERO);
    assertThat(extents.extents()).containsExactly(Extent.data(60), Extent.hole(60));
  }

  @Test
  void noExtentBeginsBehindTheRange() {
    ExtentList extents = new ExtentList(8, 100, 1000);
    extents.add(100, 0);
    extents.add(60, HOLE_AND_ZERO);
    extents.add(60, 0);
    assertThat(extents.extents()).containsExactly(Extent.data(100));
  }

  @Test
  void noExtentReachesPastTheExport() {
    ExtentList extents = new ExtentList(8, 100, 100);
    extents.add(-1, 0);
    assertThat(extents.extents()).containsExactly(Extent.data(100));
  }
}
