package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import org.junit.jupiter.api.Test;

/** The expectation that calls are short. The test tells the time. */
final class ShortCallsTest {
  private static final long MS = 1_000_000;
  private static final long LIMIT = 2 * MS;
  private static final long HOLD = ShortCalls.SHORTEST_HOLD.toNanos();
  private static final long LONGEST_HOLD = ShortCalls.LONGEST_HOLD.toNanos();

  /** The longest time of a single call. */
  private static final long SLOW = 8 * LIMIT;

  private final ShortCalls calls =
      new ShortCalls(new Carriers(1, Carriers.Scheduler.NONE), Duration.ofNanos(LIMIT), 0);
  private long now = 10_000 * MS;

  private void call(long length) {
    assertThat(isTried(now, length)).isTrue();
    now += length;
  }

  /** Makes a call of some length if it may begin; says whether it has. */
  private boolean isTried(long at, long length) {
    boolean begun = calls.mayBegin(at);
    if (begun) {
      calls.ended(at, at + length);
    }
    return begun;
  }

  @Test
  void quickCallsRunBesideEachOther() {
    call(1);
    assertThat(calls.areExpected()).isTrue();
    assertThat(calls.mayBegin(now)).isTrue();
    assertThat(calls.mayBegin(now + 1)).isTrue();
    calls.ended(now, now + 2);
    assertThat(calls.mayBegin(now + 3)).isTrue();
  }

  @Test
  void ofAFileThatNobodyKnowsOneCallIsTriedAtATime() {
    assertThat(calls.areExpected()).isFalse();
    assertThat(calls.mayBegin(now)).isTrue();
    assertThat(calls.mayBegin(now + 1)).isFalse();
    assertThat(calls.mayBegin(now + 1000 * MS)).as("it hangs").isFalse();
    calls.ended(now, now + 8000 * MS);
    assertThat(calls.mayBegin(now + 8001 * MS)).as("it was slow").isFalse();
    assertThat(calls.areExpected()).isFalse();
  }

  @Test
  void whileOneCallHangsNoOtherBegins() {
    call(1);
    assertThat(calls.mayBegin(now)).isTrue();
    assertThat(isTried(now + SLOW, 1)).isTrue();
    assertThat(calls.mayBegin(now + SLOW + 1)).isFalse();
    assertThat(calls.mayBegin(now + 100_000 * MS)).isFalse();
  }

  @Test
  void afterASlowCallTheNextAreRefusedForAWhile() {
    call(SLOW);
    assertThat(isTried(now, 1)).as("quick enough").isTrue();
    now += MS;
    call(2 * SLOW);
    assertThat(isTried(now, 1)).isFalse();
    assertThat(isTried(now + HOLD - 1, 1)).isFalse();
    assertThat(isTried(now + HOLD, 1)).isTrue();
  }

  @Test
  void callsThatAreAllABitTooSlowAreRefused() {
    for (int i = 0; i < 5; i++) {
      call(LIMIT + MS);
    }
    int refused = 0;
    for (int i = 0; i < 100; i++) {
      refused += isTried(now, LIMIT + MS) ? 0 : 1;
      now += LIMIT + MS;
    }
    assertThat(refused).isGreaterThan(80);
  }

  @Test
  void aSlowCallAmongManyQuickOnesChangesNothing() {
    for (int i = 0; i < 100; i++) {
      call(i % 10 == 0 ? SLOW / 2 : 100);
    }
    assertThat(calls.areExpected()).isTrue();
  }

  @Test
  void afterAWhileOneIsTriedAndIfItIsQuickAllAre() {
    call(2 * SLOW);
    now += HOLD;
    assertThat(calls.mayBegin(now)).isTrue();
    assertThat(calls.mayBegin(now + 1)).as("one at a time").isFalse();
    calls.ended(now, now + 2);
    assertThat(calls.mayBegin(now + 3)).isTrue();
    assertThat(calls.mayBegin(now + 4)).isTrue();
  }

  /** A call that began before the slow one ended says nothing of the time afterwards. */
  @Test
  void anEarlierQuickCallDoesNotClearASlowFile() {
    call(1);
    assertThat(calls.mayBegin(now)).isTrue();
    assertThat(calls.mayBegin(now + SLOW)).isTrue();
    calls.ended(now, now + 2 * SLOW);
    calls.ended(now + SLOW, now + 2 * SLOW + 1);
    now += 2 * SLOW + HOLD;
    assertThat(calls.mayBegin(now)).isTrue();
    assertThat(calls.mayBegin(now + 1)).isFalse();
  }

  @Test
  void slowAgainMeansLongerAndQuickMeansForgotten() {
    long longest = 0;
    for (int i = 0; i < 20; i++) {
      call(2 * SLOW);
      long held = 0;
      while (!isTried(now + held, 0)) {
        held += 50 * MS;
      }
      assertThat(held).isGreaterThanOrEqualTo(longest);
      longest = held;
      now += held;
    }
    assertThat(longest).isEqualTo(LONGEST_HOLD);
    now += HOLD;
    call(2 * SLOW);
    assertThat(isTried(now + HOLD, 1)).as("a new beginning").isTrue();
  }
}
