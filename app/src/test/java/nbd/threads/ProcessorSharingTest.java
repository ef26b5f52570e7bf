package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

/** The choice between giving the processor up and keeping it. The test tells the time. */
final class ProcessorSharingTest {
  private static final long LATE = ProcessorSharing.LATE.toNanos();

  /** The clock's time, which overflows soon. */
  private long now = Long.MAX_VALUE - 10 * LATE;

  private long away;
  private int given;

  private final ProcessorSharing sharing =
      new ProcessorSharing(
          () -> {
            given++;
            now += away;
          },
          () -> now);

  private int givenAfter(int times) {
    int before = given;
    for (int i = 0; i < times; i++) {
      sharing.giveWay();
    }
    return given - before;
  }

  @Test
  void othersRunAfterEachBatchWhileTheyAreQuick() {
    away = LATE;
    assertThat(givenAfter(20)).isEqualTo(20);
  }

  @Test
  void aNeighbourThatKeepsTheProcessorCostsAHundredthOfTheTime() {
    away = 3 * LATE;
    long began = now;
    assertThat(givenAfter(1000)).isEqualTo(1);
    while (given < 5) {
      now += LATE;
      sharing.giveWay();
    }
    assertThat(4 * away / (double) (now - began)).isBetween(0.009, 0.0101);
  }

  @Test
  void onceTheNeighbourIsGoneOthersRunAfterEachBatchAgain() {
    away = 3 * LATE;
    givenAfter(1);
    away = LATE / 2;
    now += ProcessorSharing.KEPT * 3 * LATE;
    assertThat(givenAfter(20)).isEqualTo(20);
  }
}
