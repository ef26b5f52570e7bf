package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Which carriers are made up for. The test tells the time, and is the watch. */
final class CarriersTest {
  private static final long LONG = Carriers.LONG.toNanos();

  private static final long VERY_LONG = Carriers.VERY_LONG.toNanos();

  private final List<Integer> added = new ArrayList<>();
  private final Carriers carriers = new Carriers(3, new Recorded(added));

  private record Recorded(List<Integer> added) implements Carriers.Scheduler {
    @Override
    public int usualCarriers() {
      return 2;
    }

    @Override
    public void addCarriers(int count) {
      added.add(count);
    }
  }

  /** Has no thread for the first carrier that it is asked for. */
  private record OutOfThreads(List<Integer> added) implements Carriers.Scheduler {
    @Override
    public int usualCarriers() {
      return 2;
    }

    @Override
    public void addCarriers(int count) {
      added.add(count);
      if (added.size() == 1) {
        throw new OutOfMemoryError("of the test");
      }
    }
  }

  private boolean look(long now) {
    return carriers.look(now, 2);
  }

  @Test
  void thereAreSoManyPermitsAndNoMore() {
    int one = carriers.enter(0);
    int two = carriers.enter(0);
    int three = carriers.enter(0);
    assertThat(List.of(one, two, three)).containsExactlyInAnyOrder(0, 1, 2);
    assertThat(carriers.enter(0)).isEqualTo(Carriers.NONE);
    carriers.leave(two);
    assertThat(carriers.enter(0)).isEqualTo(two);
  }

  @Test
  void aPermitKnowsWhenItWasTaken() {
    int one = carriers.enter(7);
    int two = carriers.enter(8);
    assertThat(carriers.leave(one)).isEqualTo(7);
    assertThat(carriers.leave(two)).isEqualTo(8);
  }

  @Test
  void whileAnyCarrierIsLeftNoneIsAddedAtOnce() {
    int one = carriers.enter(0);
    assertThat(look(LONG + 1)).isTrue();
    assertThat(added).isEmpty();
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
  void eachCarrierThatHangsIsMadeUpFor() {
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
  void aCarrierThatCouldNotBeAddedIsTriedAgain() {
    Carriers few = new Carriers(1, new OutOfThreads(added));
    few.enter(0);
    assertThat(few.look(VERY_LONG + 1, 2)).isTrue();
    assertThat(few.look(VERY_LONG + 2, 2)).isTrue();
    few.look(VERY_LONG + 3, 2);
    assertThat(added).containsExactly(1, 1);
  }

  @Test
  void whereNoCarriersCanBeAddedThereMayBeNoPermitAtAll() {
    assertThat(new Carriers(0, Carriers.Scheduler.NONE).enter(0)).isEqualTo(Carriers.NONE);
  }
}
