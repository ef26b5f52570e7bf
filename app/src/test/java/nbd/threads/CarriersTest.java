package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** The replacement of blocked carriers. The test tells the time, and is the watch. */
final class CarriersTest {
  private static final long LONG = Carriers.LONG.toNanos();
  private static final long VERY_LONG = Carriers.VERY_LONG.toNanos();

  /** The number of carriers that the watch has asked for, each time. */
  private final List<Integer> added = new ArrayList<>();

  private int roused;
  private boolean isOutOfThreads;

  private final Carriers carriers =
      new Carriers(
          3,
          new Carriers.Scheduler() {
            @Override
            public int usualCarriers() {
              return 2;
            }

            @Override
            public void addCarriers(int count) {
              added.add(count);
            }

            @Override
            public void rouse() {
              roused++;
              if (isOutOfThreads) {
                throw new OutOfMemoryError("of the test");
              }
            }
          });

  private boolean look(long now) {
    return carriers.look(now, 2);
  }

  @Test
  void thereAreSoManyPermitsAndNoMore() {
    int one = carriers.enter(7);
    int two = carriers.enter(8);
    int three = carriers.enter(9);
    assertThat(List.of(one, two, three)).containsExactlyInAnyOrder(0, 1, 2);
    assertThat(carriers.enter(10)).isEqualTo(Carriers.NONE);
    assertThat(carriers.leave(two)).as("when it was taken").isEqualTo(8);
    assertThat(carriers.enter(11)).isEqualTo(two);
    assertThat(carriers.leave(one)).isEqualTo(7);
  }

  @Test
  void whileAnyCarrierIsLeftNoneIsAddedAtOnce() {
    int one = carriers.enter(0);
    assertThat(look(LONG + 1)).isTrue();
    carriers.leave(one);
    assertThat(look(LONG + 2)).isFalse();
    assertThat(added).isEmpty();
  }

  @Test
  void whenAllAreBlockedOneIsAddedAndTakenBackWhenOneReturns() {
    int one = carriers.enter(0);
    carriers.enter(10);
    look(LONG + 10);
    assertThat(added).isEmpty();
    look(LONG + 11);
    look(LONG + 12);
    assertThat(added).containsExactly(1);
    carriers.enter(LONG + 12);
    look(2 * LONG + 13);
    assertThat(added).as("also the one that was added is blocked").containsExactly(1, 2);
    carriers.leave(one);
    look(2 * LONG + 14);
    assertThat(added).containsExactly(1, 2, 1);
  }

  @Test
  void eachCarrierThatHangsIsReplaced() {
    int one = carriers.enter(0);
    look(VERY_LONG + 1);
    assertThat(added).containsExactly(1);
    carriers.enter(10);
    look(VERY_LONG + 11);
    assertThat(added).containsExactly(1, 2);
    carriers.leave(one);
    look(VERY_LONG + 12);
    assertThat(added).containsExactly(1, 2, 1);
  }

  @Test
  void carriersAreRousedWhileAnyIsAdded() {
    int hanging = carriers.enter(0);
    look(VERY_LONG);
    assertThat(roused).isZero();
    look(VERY_LONG + 1);
    look(VERY_LONG + 2);
    assertThat(roused).isEqualTo(2);
    carriers.leave(hanging);
    look(VERY_LONG + 3);
    assertThat(roused).isEqualTo(2);
  }

  @Test
  void aCarrierThatCouldNotBeStartedIsTriedAgain() {
    isOutOfThreads = true;
    carriers.enter(0);
    assertThat(look(VERY_LONG + 1)).isTrue();
    isOutOfThreads = false;
    assertThat(look(VERY_LONG + 2)).isTrue();
    assertThat(added).containsExactly(1);
    assertThat(roused).isEqualTo(2);
  }

  @Test
  void whereNoCarriersCanBeAddedThereMayBeNoPermitAtAll() {
    assertThat(new Carriers(0, Carriers.Scheduler.NONE).enter(0)).isEqualTo(Carriers.NONE);
  }
}
