package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import nbd.check.HistoryChecker.Flush;
import nbd.check.HistoryChecker.Read;
import nbd.check.HistoryChecker.Write;
import org.junit.jupiter.api.Test;

/** The rule of {@link HistoryChecker}, clause by clause. */
class HistoryCheckerTest {
  private final HistoryChecker checker = new HistoryChecker(2);

  @Test
  void afterAFlushAnywhereTheOldValueIsForbiddenEverywhere() {
    Write write = write(0);
    flush(1);
    assertThat(allowed(2, 0)).isFalse();
    assertThat(allowed(2, write.value())).isTrue();
  }

  @Test
  void withoutAFlushOtherConnectionsMaySeeEither() {
    Write write = write(0);
    assertThat(allowed(1, 0)).isTrue();
    assertThat(allowed(1, write.value())).isTrue();
    assertThat(allowed(0, 0)).as("its own connection may not").isFalse();
  }

  @Test
  void aWriteWithFuaIsKnownAtOnce() {
    Write write = checker.beginWrite(0, 0, true);
    assertThat(allowed(1, 0)).isTrue();
    checker.endWrite(write, true);
    assertThat(allowed(1, 0)).isFalse();
  }

  @Test
  void aFlushThatBeganBeforeTheWriteEndedSaysNothing() {
    Write write = checker.beginWrite(0, 0, false);
    Flush flush = checker.beginFlush(1);
    checker.endWrite(write, true);
    checker.endFlush(flush, true);
    assertThat(allowed(1, 0)).isTrue();
  }

  @Test
  void aFlushThatFailedSaysNothing() {
    write(0);
    checker.endFlush(checker.beginFlush(1), false);
    assertThat(allowed(1, 0)).isTrue();
  }

  @Test
  void aReadThatBeganBeforeTheFlushEndedMaySeeEither() {
    Write write = write(0);
    Flush flush = checker.beginFlush(1);
    Read read = checker.beginRead(2, 0);
    Read other = checker.beginRead(2, 0);
    checker.endFlush(flush, true);
    assertThat(checker.endRead(read, 0)).isEmpty();
    assertThat(checker.endRead(other, write.value())).isEmpty();
  }

  @Test
  void aWriteThatFailedMayBeSeenOrNot() {
    Write write = checker.beginWrite(0, 0, false);
    checker.endWrite(write, false);
    flush(0);
    assertThat(allowed(0, 0)).isTrue();
    assertThat(allowed(1, write.value())).isTrue();
  }

  @Test
  void ofWritesWithoutAFlushBetweenEitherMayWin() {
    for (int winner = 0; winner < 2; winner++) {
      List<Write> writes = List.of(write(0), write(1));
      flush(2);
      assertThat(allowed(3, 0)).isFalse();
      assertThat(allowed(3, writes.get(winner).value())).isTrue();
    }
  }

  @Test
  void allReadsAgreeOnTheWinner() {
    Write one = write(0);
    Write other = write(1);
    flush(2);
    assertThat(allowed(3, one.value())).isTrue();
    assertThat(allowed(3, other.value())).isFalse();
    assertThat(allowed(1, one.value())).isTrue();
  }

  @Test
  void ofWritesWithAFlushBetweenTheLaterWins() {
    Write one = write(0);
    flush(2);
    Write other = write(1);
    assertThat(allowed(3, one.value())).as("not flushed yet").isTrue();
    assertThat(allowed(1, one.value())).as("on its own connection").isFalse();
    flush(3);
    assertThat(allowed(3, one.value())).isFalse();
    assertThat(allowed(3, other.value())).isTrue();
  }

  @Test
  void aValueThatNobodyWroteThereIsForbidden() {
    Write elsewhere = checker.beginWrite(0, 1, false);
    assertThat(allowed(0, elsewhere.value())).isFalse();
    assertThat(allowed(0, 4711)).isFalse();
    assertThat(allowed(0, -1)).isFalse();
  }

  @Test
  void theViolationListsTheEventsThatShowIt() {
    write(0);
    flush(1);
    assertThat(checker.endRead(checker.beginRead(2, 0), 0))
        .hasValueSatisfying(
            violation ->
                assertThat(violation.history())
                    .containsExactly(
                        "the first contents were there",
                        "write 1 on connection 0 was answered",
                        "flush 2 on connection 1 succeeded",
                        "read 3 on connection 2 returned zeroes from sector 0: stale read"));
  }

  @Test
  void aForgottenValueStaysForbidden() {
    Write first = write(0);
    Write last = first;
    Write lastButOne = first;
    for (int i = 0; i < 1000; i++) {
      flush(0);
      lastButOne = last;
      last = write(0);
    }
    assertThat(allowed(1, first.value())).isFalse();
    assertThat(allowed(1, 0)).isFalse();
    assertThat(allowed(1, lastButOne.value())).isTrue();
    assertThat(allowed(1, last.value())).isTrue();
  }

  private Write write(int connection) {
    Write write = checker.beginWrite(connection, 0, false);
    checker.endWrite(write, true);
    return write;
  }

  private void flush(int connection) {
    checker.endFlush(checker.beginFlush(connection), true);
  }

  private boolean allowed(int connection, long value) {
    return checker.endRead(checker.beginRead(connection, 0), value).isEmpty();
  }
}
