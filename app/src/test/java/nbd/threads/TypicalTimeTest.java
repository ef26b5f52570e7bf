package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

final class TypicalTimeTest {
  private static final long QUICK = 100_000;
  private static final long SLOW = 5_000_000;

  private final TypicalTime time = new TypicalTime();

  /** How many quick calls make it short. */
  private int quickUntilShort() {
    int count = 0;
    while (!time.isShort()) {
      assertThat(count++).isLessThan(1000);
      time.took(QUICK);
    }
    return count;
  }

  @Test
  void aFewQuickOnesHaveToBeSeenFirst() {
    assertThat(time.isShort()).isFalse();
    assertThat(quickUntilShort()).isBetween(2, 20);
  }

  @Test
  void theSlowerOneWasTheLongerItTakes() {
    quickUntilShort();
    time.took(SLOW);
    int few = quickUntilShort();
    time.took(100 * SLOW);
    assertThat(quickUntilShort()).isGreaterThan(few).isGreaterThan(20);
  }

  @Test
  void oneThatIsHardlyLongerThanShortChangesNothing() {
    for (int i = 0; i < 100; i++) {
      time.took(QUICK);
    }
    time.took(2_000_000);
    assertThat(time.isShort()).isTrue();
  }

  @Test
  void calmSlownessIsNeverShort() {
    for (int i = 0; i < 1000; i++) {
      time.took(SLOW);
      assertThat(time.isShort()).isFalse();
    }
  }
}
