package nbd.client;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import nbd.storage.Extent;
import org.junit.jupiter.api.Test;

/** Limits on a server's extents. */
final class ExtentListTest {
  private static final int HOLE_AND_ZERO = 3;

  private static ExtentList begun(int most, long asked, long left) {
    ExtentList extents = new ExtentList(1, most, asked, left);
    assertThat(extents.begin(1)).isTrue();
    return extents;
  }

  private static List<Extent> allocation(ExtentList extents) {
    return extents.extents().stream().map(StatusExtent::allocation).toList();
  }

  @Test
  void theLastExtentMayReachPastTheRange() {
    ExtentList extents = begun(8, 100, 1000);
    extents.add(60, 0);
    extents.add(60, HOLE_AND_ZERO);
    assertThat(allocation(extents)).containsExactly(Extent.data(60), Extent.hole(60));
  }

  @Test
  void noExtentBeginsBehindTheRange() {
    ExtentList extents = begun(8, 100, 1000);
    extents.add(100, 0);
    extents.add(60, HOLE_AND_ZERO);
    extents.add(60, 0);
    assertThat(allocation(extents)).containsExactly(Extent.data(100));
  }

  @Test
  void noExtentReachesPastTheExport() {
    ExtentList extents = begun(8, 100, 100);
    extents.add(-1, 0);
    assertThat(allocation(extents)).containsExactly(Extent.data(100));
  }

  @Test
  void extentsOfOtherContextsAreLeftOut() {
    ExtentList extents = new ExtentList(2, 8, 100, 1000);
    assertThat(extents.begin(1)).isTrue();
    extents.add(70, HOLE_AND_ZERO);
    assertThat(extents.isEmpty()).isTrue();
    assertThat(extents.begin(2)).isTrue();
    extents.add(60, 1);
    assertThat(extents.begin(3)).isTrue();
    extents.add(80, 0);
    assertThat(extents.extents()).containsExactly(new StatusExtent(60, 1));
    assertThat(extents.begin(2)).as("a context that came before").isFalse();
  }
}
