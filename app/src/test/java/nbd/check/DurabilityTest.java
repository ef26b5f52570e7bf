package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.Set;
import nbd.check.HistoryChecker.Write;
import nbd.check.Violation.Level;
import org.junit.jupiter.api.Test;

/** Violations that a crash explains, and those that happen in a history with a crash. */
class DurabilityTest {
  private final RecentEvents events = new RecentEvents();
  private final HistoryChecker checker =
      new HistoryChecker(new Event.Start(2, true), Set.of(Level.values()), 0, events);

  @Test
  void flushedDataThatAreGoneAfterACrashAreNotDurable() {
    write(0);
    flush(1);
    checker.crash();
    assertThat(isOfCrash(1, 0)).isTrue();
  }

  @Test
  void aFlushAfterTheCrashChangesNothing() {
    write(0);
    flush(1);
    checker.crash();
    flush(2);
    assertThat(isOfCrash(2, 0)).isTrue();
  }

  @Test
  void dataThatNobodyWroteAfterACrashAreNotDurable() {
    checker.crash();
    assertThat(isOfCrash(1, 7)).isTrue();
  }

  @Test
  void dataLostAtACloseBeforeTheCrashAreNoMatterOfDurability() {
    write(0);
    checker.close(0, false);
    flush(1);
    assertThat(isOfCrash(1, 0)).isFalse();
  }

  @Test
  void dataWrittenAndLostAfterTheCrashAreNoMatterOfDurability() {
    checker.crash();
    write(0);
    checker.close(0, false);
    flush(1);
    assertThat(isOfCrash(1, 0)).isFalse();
  }

  @Test
  void dataThatWereReadAfterTheCrashAreNoMatterOfDurability() {
    Write flushed = write(0);
    flush(1);
    checker.crash();
    assertThat(checker.endRead(checker.beginRead(1, 0), flushed.value())).isEmpty();
    assertThat(isOfCrash(2, 0)).isFalse();
  }

  private Write write(int connection) {
    Write write = checker.beginWrite(connection, 0, false);
    checker.endWrite(write, true);
    return write;
  }

  private void flush(int connection) {
    checker.endFlush(checker.beginFlush(connection), true);
  }

  /** Reads a value that breaks the promise, and says whether that is for a crash. */
  private boolean isOfCrash(int connection, long value) {
    Violation found =
        checker.endRead(checker.beginRead(connection, 0, 1), List.of(List.of(value))).orElseThrow();
    assertThat(found.level()).isEqualTo(Level.FLUSH);
    return Durability.isBroken(found, events.list());
  }
}
