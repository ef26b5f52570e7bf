package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

/** When calls that are mostly quick are expected to wait. The test tells the time. */
final class SlowCallsTest {
  private static final long MS = 1_000_000;

  private final SlowCalls calls = new SlowCalls(0);
  private long now = 10_000 * MS;

  private void call(long length) {
    assertThat(calls.mayBegin(now)).isTrue();
    calls.ended(now, now + length);
    now += length;
  }

  /** Whether a quick call could be made at a time; it is made. */
  private boolean isTried(long at) {
    boolean begun = calls.mayBegin(at);
    if (begun) {
      calls.ended(at, at + 1);
    }
    return begun;
  }

  @Test
  void quickCallsRunBesideEachOther() {
    call(1);
    assertThat(calls.mayBegin(now)).isTrue();
    assertThat(calls.mayBegin(now + 1)).isTrue();
    calls.ended(now, now + 2);
    assertThat(calls.mayBegin(now + 3)).isTrue();
  }

  @Test
  void ofAFileThatNobodyKnowsOneCallIsTriedAtATime() {
    assertThat(calls.mayBegin(now)).isTrue();
    assertThat(calls.mayBegin(now + 1)).isFalse();
    assertThat(calls.mayBegin(now + 1000 * MS)).as("it hangs").isFalse();
    calls.ended(now, now + 8000 * MS);
    assertThat(calls.mayBegin(now + 8001 * MS)).as("it was slow").isFalse();
  }

  @Test
  void whileOneCallHangsNoOtherBegins() {
    call(1);
    assertThat(calls.mayBegin(now)).isTrue();
    assertThat(isTried(now + 20 * MS)).isTrue();
    assertThat(calls.mayBegin(now + 21 * MS)).isFalse();
    assertThat(calls.mayBegin(now + 100_000 * MS)).isFalse();
  }

  @Test
  void afterASlowCallTheNextAreHandedOnForAWhile() {
    call(19 * MS);
    assertThat(isTried(now)).as("quick enough").isTrue();
    call(21 * MS);
    assertThat(isTried(now)).isFalse();
    assertThat(isTried(now + 249 * MS)).isFalse();
    assertThat(isTried(now + 251 * MS)).isTrue();
  }

  @Test
  void afterAWhileOneIsTriedAndIfItIsQuickAllAre() {
    call(21 * MS);
    now += 300 * MS;
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
    assertThat(calls.mayBegin(now + 15 * MS)).isTrue();
    calls.ended(now, now + 21 * MS);
    calls.ended(now + 15 * MS, now + 22 * MS);
    now += 400 * MS;
    assertThat(calls.mayBegin(now)).isTrue();
    assertThat(calls.mayBegin(now + 1)).isFalse();
  }

  @Test
  void slowAgainMeansLongerAndQuickMeansForgotten() {
    long longest = 0;
    for (int i = 0; i < 20; i++) {
      call(50 * MS);
      long held = 0;
      while (!isHeldUntil(held)) {
        held += 50 * MS;
      }
      assertThat(held).isGreaterThanOrEqualTo(longest);
      longest = held;
      now += held;
    }
    assertThat(longest).isEqualTo(8000 * MS);
    now += 1000 * MS;
    call(50 * MS);
    assertThat(isTried(now + 251 * MS)).as("a new beginning").isTrue();
  }

  /** Whether a call may begin so much later; it is undone by being slow like the others. */
  private boolean isHeldUntil(long held) {
    return calls.mayBegin(now + held) && undone(now + held);
  }

  private boolean undone(long began) {
    calls.ended(began, began);
    return true;
  }
}
