package nbd.check;

import static nbd.check.Step.Kind.TRIM;
import static nbd.check.Step.Kind.WRITE;
import static nbd.check.Step.Kind.ZERO;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.Set;
import nbd.check.HistoryChecker.Read;
import nbd.check.HistoryChecker.Write;
import nbd.check.Violation.Kind;
import nbd.check.Violation.Level;
import org.junit.jupiter.api.Test;

/** Violations of each kind and level, and what looks like them and is none. */
class ViolationTest {
  private final HistoryChecker checker =
      new HistoryChecker(new Event.Start(2, true), Set.of(Level.values()), 0, event -> {});

  @Test
  void aReadThatMissesAnAnsweredWriteIsStale() {
    write(0);
    Violation found = bad(1, 0);
    assertThat(found.level()).isEqualTo(Level.COHERENT);
    assertThat(found.kind()).isEqualTo(Kind.STALE_READ);
    flush(2);
    assertThat(bad(1, 0).level()).isEqualTo(Level.FLUSH);
  }

  @Test
  void whatTheReadMightHaveReturnedIsTold() {
    write(0);
    flush(0);
    Write second = write(0);
    Write inFlight = beginWrite(1, WRITE);
    Violation found = bad(0, 0);
    assertThat(found.allowed()).containsExactly(second.value(), inFlight.value());
  }

  @Test
  void aFlushedWriteThatIsMissingAfterItsConnectionWasClosedIsLost() {
    write(0);
    checker.close(0, false);
    flush(1);
    assertThat(bad(1, 0).kind()).isEqualTo(Kind.LOST_WRITE);
  }

  @Test
  void aConnectionThatIsOpenedAgainIsAnother() {
    write(0);
    checker.close(0, true);
    assertThat(bad(0, 0).level()).isEqualTo(Level.COHERENT);
  }

  @Test
  void aFlushedWriteThatIsMissingAfterACrashIsLost() {
    write(0);
    flush(1);
    checker.crash();
    assertThat(bad(1, 0).kind()).isEqualTo(Kind.LOST_WRITE);
  }

  @Test
  void whatIsNotFlushedMayBeLostByACrashOrNot() {
    Write durable = write(0, WRITE, true);
    Write lost = write(0);
    Write inFlight = beginWrite(1, WRITE);
    checker.crash();
    checker.endWrite(inFlight, false);
    assertThat(good(0, durable.value())).isTrue();
    assertThat(good(0, lost.value())).isTrue();
    assertThat(good(0, inFlight.value())).isTrue();
  }

  @Test
  void whatWasInFlightAtACrashIsNotWrittenLater() {
    Write inFlight = beginWrite(0, WRITE);
    Write failed = beginWrite(0, WRITE);
    checker.endWrite(failed, false);
    checker.crash();
    write(0, WRITE, true);
    assertThat(bad(0, inFlight.value()).level()).isEqualTo(Level.FLUSH);
    assertThat(bad(0, failed.value()).level()).isEqualTo(Level.FLUSH);
  }

  @Test
  void olderDataThanTheLastDurableWriteReplacedAreResurrected() {
    Write first = write(0, WRITE, true);
    write(0, WRITE, true);
    write(0, WRITE, true);
    checker.crash();
    assertThat(bad(0, first.value()).kind()).isEqualTo(Kind.RESURRECTED_DATA);
  }

  @Test
  void whatTwoDurableWritesReplacedThatHaveNoOrderIsALostWrite() {
    Write first = write(0, WRITE, true);
    Write one = beginWrite(0, WRITE);
    Write other = beginWrite(1, WRITE);
    checker.endWrite(one, true);
    checker.endWrite(other, true);
    flush(0);
    checker.crash();
    assertThat(bad(0, first.value()).kind()).isEqualTo(Kind.LOST_WRITE);
  }

  @Test
  void writesThatReadsSawInOppositeOrdersAreUnserializable() {
    Write one = write(0);
    Write other = write(1);
    assertThat(good(0, other.value())).isTrue();
    Violation found = bad(1, one.value());
    assertThat(found.kind()).isEqualTo(Kind.UNSERIALIZABLE_WRITES);
    assertThat(found.level()).isEqualTo(Level.FLUSH);
    assertThat(found.history())
        .containsExactly(
            "write 1 on connection 0 was answered",
            "read 3 on connection 0 returned the data of write 2 on connection 1",
            "read 4 on connection 1 returned the data of write 1 on connection 0 from sector 0:"
                + " unserializable writes");
    assertThat(operations(found)).containsExactly(1L, 2L, 3L, 4L);
  }

  @Test
  void theRequestsThatShowAViolationAreTheWriteTheFlushAndTheRead() {
    Write write = write(0);
    assertThat(good(0, write.value())).isTrue();
    flush(1);
    assertThat(operations(bad(1, 0))).containsExactly(1L, 3L, 4L);
  }

  private static List<Long> operations(Violation violation) {
    return violation.requests().stream().map(Event.Begin::operation).toList();
  }

  @Test
  void partsOfAReplacedWriteAreAShornWrite() {
    Write old = write(0);
    Write replacement = beginWrite(0, WRITE);
    Read during = checker.beginRead(0, 0);
    checker.endWrite(replacement, true);
    List<List<Long>> mixture = List.of(List.of(old.value(), replacement.value()));
    assertThat(checker.endRead(during, mixture)).as("in flight").isEmpty();
    assertThat(checker.endRead(checker.beginRead(0, 0), mixture))
        .hasValueSatisfying(found -> assertThat(found.kind()).isEqualTo(Kind.SHORN_WRITE));
  }

  @Test
  void partsOfTwoWritesThatWereInFlightTogetherMayStay() {
    Write one = beginWrite(0, WRITE);
    Write other = beginWrite(1, WRITE);
    checker.endWrite(one, true);
    checker.endWrite(other, true);
    flush(0);
    List<List<Long>> mixture = List.of(List.of(one.value(), other.value()));
    assertThat(checker.endRead(checker.beginRead(0, 0), mixture)).isEmpty();
  }

  @Test
  void dataOfAnotherSectorAreForeign() {
    Write elsewhere = checker.beginWrite(0, WRITE, 1, 1, false);
    assertThat(bad(0, elsewhere.value()).kind()).isEqualTo(Kind.FOREIGN_DATA);
    assertThat(bad(0, 4711).kind()).isEqualTo(Kind.FOREIGN_DATA);
  }

  @Test
  void aWriteOfSeveralSectorsIsAWriteOfEach() {
    Write write = checker.beginWrite(0, WRITE, 0, 2, true);
    checker.endWrite(write, true);
    Read read = checker.beginRead(1, 0, 2);
    assertThat(checker.endRead(read, List.of(List.of(write.value()), List.of(write.value() + 1))))
        .isEmpty();
    Read torn = checker.beginRead(1, 0, 2);
    assertThat(checker.endRead(torn, List.of(List.of(write.value()), List.of(0L))))
        .hasValueSatisfying(found -> assertThat(found.sector()).isEqualTo(1));
  }

  @Test
  void zeroesOfOneOfTwoZeroingsSettleNoOrder() {
    Write zero = write(0, ZERO, false);
    Write write = write(1);
    Write zeroAgain = write(2, ZERO, false);
    assertThat(zero.value()).isEqualTo(zeroAgain.value()).isZero();
    assertThat(good(1, 0)).isTrue();
    assertThat(good(0, write.value())).isTrue();
    flush(0);
    write(0, WRITE, true);
    assertThat(bad(1, 0).level()).isEqualTo(Level.FLUSH);
  }

  @Test
  void aTrimLeavesAnythingUntilItIsOverwritten() {
    Write old = write(0, WRITE, true);
    write(0, TRIM, true);
    assertThat(good(1, old.value())).isTrue();
    assertThat(good(1, 0)).isTrue();
    write(0, WRITE, true);
    assertThat(bad(1, old.value()).kind()).isEqualTo(Kind.STALE_READ);
    assertThat(bad(1, 0).kind()).isEqualTo(Kind.STALE_READ);
  }

  @Test
  void unknownFirstContentsMayBeAnything() {
    HistoryChecker unknown =
        new HistoryChecker(new Event.Start(2, false), Set.of(Level.FLUSH), 0, event -> {});
    assertThat(unknown.endRead(unknown.beginRead(0, 0), 4711)).isEmpty();
    unknown.endWrite(unknown.beginWrite(0, 0, true), true);
    assertThat(unknown.endRead(unknown.beginRead(0, 0), 4711)).isPresent();
  }

  private Write beginWrite(int connection, Step.Kind kind) {
    return checker.beginWrite(connection, kind, 0, 1, false);
  }

  private Write write(int connection) {
    return write(connection, WRITE, false);
  }

  private Write write(int connection, Step.Kind kind, boolean fua) {
    Write write = checker.beginWrite(connection, kind, 0, 1, fua);
    checker.endWrite(write, true);
    return write;
  }

  private void flush(int connection) {
    checker.endFlush(checker.beginFlush(connection), true);
  }

  private boolean good(int connection, long value) {
    return checker
        .endRead(checker.beginRead(connection, 0), value)
        .filter(found -> found.level() == Level.FLUSH)
        .isEmpty();
  }

  private Violation bad(int connection, long value) {
    return checker.endRead(checker.beginRead(connection, 0), value).orElseThrow();
  }
}
