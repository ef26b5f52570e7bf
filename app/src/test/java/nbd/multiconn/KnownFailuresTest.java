package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capability;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** The ways in which other filters of this kind break the promise, each driven step by step. */
class KnownFailuresTest {

  @Test
  void aWriteInFlightDuringAFlushIsCoveredByTheNext() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    Gate inWrite = new Gate();
    scene.below(0).onWrite = inWrite;
    Running write = Running.start(() -> scene.write(0));
    inWrite.awaitReached();
    assertThat(scene.flushed(1)).containsExactly(0);

    inWrite.open();
    write.join();

    assertThat(scene.flushed(1)).containsExactly(0);
    assertThat(scene.flushed(1)).isEmpty();
  }

  @Test
  void aWriteThatEndsWhileItsHandleIsFlushedIsCoveredByTheNext() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    Gate inFlush = scene.stopFlushes(0);
    Running flush = scene.startFlush(1);
    inFlush.awaitReached();
    scene.write(0);
    inFlush.open();
    flush.join();

    assertThat(scene.flushed(1)).containsExactly(0);
    assertThat(scene.flushed(1)).isEmpty();
  }

  @Test
  void aWriteThatLandsWhileTheGroupWaitsForASlowHandleIsNotForgotten() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    scene.write(1);
    Gate fast = scene.stopFlushes(0);
    Gate slow = scene.stopFlushes(1);
    Running flush = scene.startFlush(2);
    fast.awaitReached();
    slow.awaitReached();
    fast.open();
    scene.below(0).onFlush = () -> {};
    scene.write(0);
    slow.open();
    flush.join();

    assertThat(scene.flushed(2)).containsExactly(0);
  }

  @Test
  void aReaderIsFlushedOnlyWhenTheWriterHasBeen() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.read(0);
    scene.write(1);
    Gate inFlush = scene.stopFlushes(1);
    Running flush = scene.startFlush(2);
    inFlush.awaitReached();
    assertThat(scene.fake.flushed).containsExactly(1);

    inFlush.open();
    flush.join();

    assertThat(scene.fake.flushed).containsExactly(1, 0);
  }

  @Test
  void aWriterThatReadsBetweenItsOwnFlushAndASlowOnesIsFlushedAgain() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    scene.write(1);
    Gate fast = scene.stopFlushes(0);
    Gate slow = scene.stopFlushes(1);
    Running flush = scene.startFlush(2);
    fast.awaitReached();
    slow.awaitReached();
    scene.read(0);
    scene.below(0).onFlush = () -> {};
    fast.open();
    slow.open();
    flush.join();

    assertThat(scene.fake.flushed).hasSize(3).last().isEqualTo(0);
  }

  @Test
  void aReadInFlightOverAFlushHasToEndBeforeItsHandleIsFlushed() throws IOException {
    Scene scene = Scene.emulating(3);
    Gate inRead = new Gate();
    scene.below(0).onRead = inRead;
    Running read = Running.start(() -> scene.read(0));
    inRead.awaitReached();
    scene.write(1);
    Running flush = scene.startFlush(2);
    flush.awaitParked();
    assertThat(scene.fake.flushed).containsExactly(1);

    inRead.open();
    read.join();
    flush.join();

    assertThat(scene.fake.flushed).containsExactly(1, 0);
    assertThat(scene.flushed(2)).isEmpty();
  }

  @Test
  void readsThatBeginLaterAreNotWaitedFor() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.read(0);
    scene.write(1);
    Gate refresh = scene.stopFlushes(0);
    Running flush = scene.startFlush(2);
    refresh.awaitReached();
    Gate inRead = new Gate();
    scene.below(0).onRead = inRead;
    Running read = Running.start(() -> scene.read(0));
    inRead.awaitReached();
    refresh.open();
    flush.join();

    assertThat(scene.flushed(2)).as("it began when all was visible").isEmpty();
    inRead.open();
    read.join();
  }

  @Test
  void readsThatFollowOneAnotherWithoutAGapDoNotHoldUpAFlush() throws IOException {
    Scene scene = Scene.emulating(3);
    Gate first = new Gate();
    scene.below(0).onRead = first;
    Running before = Running.start(() -> scene.read(0));
    first.awaitReached();
    scene.write(1);
    Running flush = scene.startFlush(2);
    flush.awaitParked();
    Gate second = new Gate();
    scene.below(0).onRead = second;
    Running after = Running.start(() -> scene.read(0));
    second.awaitReached();

    first.open();
    before.join();
    flush.join();

    assertThat(scene.fake.flushed).containsExactly(1, 0);
    second.open();
    after.join();
  }

  @Test
  void aFlushThatFindsAllCoveredStillWaitsForTheReaderThatIsBeingRefreshed() throws IOException {
    Scene scene = Scene.emulating(4);
    scene.read(0);
    scene.write(1);
    Gate refresh = scene.stopFlushes(0);
    Running first = scene.startFlush(2);
    refresh.awaitReached();
    Running second = scene.startFlush(3);
    second.awaitParked();

    refresh.open();
    first.join();
    second.join();

    assertThat(scene.fake.flushed).containsExactly(1, 0);
  }

  @Test
  void twoMultiConnExportsInOneGroupAreFlushedEachForItself() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, tracking, 0);
      scene.open(1, "a");
      scene.open(1, "b");
      scene.write(0);
      scene.write(1);

      assertThat(scene.flushed(0)).as("%s", tracking).containsExactly(0);
      assertThat(scene.flushed(1)).as("%s", tracking).containsExactly(1);
    }
  }

  @Test
  void aFlushOfAFileThatWasReplacedDoesNotCountForTheOneThatHasItsNameNow() throws IOException {
    Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, TrackDirty.CONNECTION, 0);
    scene.open(1, "a.img");
    scene.fake.storage = "the file that replaced it";
    scene.open(2, "a.img");
    scene.write(0);
    scene.write(1);

    assertThat(scene.flushed(2)).containsExactly(2);
    assertThat(scene.flushed(0)).containsExactly(0);
    for (int i = 0; i < 3; i++) {
      scene.handle(i).close();
    }
    assertThat(scene.filter.groups()).isZero();
  }

  @Test
  void anEmulatedFlushCoversEachNameOfAMultiConnBackendByItself() throws IOException {
    Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.EMULATE, TrackDirty.CONNECTION, 0);
    scene.open(2, "a");
    scene.open(2, "b");
    scene.write(0);
    scene.write(2);
    scene.write(3);

    assertThat(scene.flushed(1)).containsExactlyInAnyOrder(1, 2);
    assertThat(scene.flushed(3)).isEmpty();
  }

  @Test
  void oneHandleWhoseFlushFailsDoesNotKeepTheOthersFromBeingFlushed() throws IOException {
    Scene scene = Scene.emulating(4);
    scene.write(0);
    scene.write(1);
    scene.write(2);
    scene.read(3);
    scene.below(0).onFlush =
        () -> {
          throw new NbdException(NbdError.ENOSPC, "no space left");
        };

    assertThatThrownBy(() -> scene.flush(3))
        .isInstanceOfSatisfying(
            NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.ENOSPC))
        .hasMessageContaining("no space left");
    assertThat(scene.fake.takeFlushed()).contains(0, 1, 2);
    assertThatThrownBy(() -> scene.flush(3)).hasMessageContaining("no space left");
    assertThat(scene.fake.takeFlushed()).containsExactly(0);
    scene.below(0).onFlush = () -> {};
    assertThat(scene.flushed(3)).startsWith(0);
    assertThat(scene.flushed(3)).isEmpty();
  }

  @Test
  void everyFailureIsReportedWithTheFirst() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    scene.write(1);
    for (int i = 0; i < 2; i++) {
      scene.below(i).onFlush =
          () -> {
            throw new IOException("broken");
          };
    }

    assertThatThrownBy(() -> scene.flush(2))
        .isInstanceOf(NbdException.class)
        .satisfies(e -> assertThat(e.getSuppressed()).hasSize(1));
  }

  @Test
  void aBackendThatThrowsWhatItShouldNotFailsTheFlushAndNothingElse() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    scene.below(0).onFlush =
        () -> {
          throw new IllegalStateException("a bug");
        };

    assertThatThrownBy(() -> scene.flush(1))
        .isInstanceOf(NbdException.class)
        .hasMessageContaining("a bug");
    scene.below(0).onFlush = () -> {};
    assertThat(scene.flushed(1)).containsExactly(0);
  }

  @Test
  void aFailedWriteIsFlushedSinceItMayHaveChangedSomething() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.below(0).onWrite =
        () -> {
          throw new IOException("broken");
        };
    assertThatThrownBy(() -> scene.write(0)).hasMessage("broken");

    assertThat(scene.flushed(1)).containsExactly(0);
  }

  @Test
  void aSlowFlushOfOneExportKeepsNobodyFromAnother() throws IOException {
    // These names have the same hash code, and so the same stripe.
    Scene scene = Scene.byExportName(MultiConnMode.EMULATE);
    scene.open(1, "Aa");
    scene.write(0);
    Gate slow = scene.stopFlushes(0);
    Running flush = scene.startFlush(0);
    slow.awaitReached();

    scene.open(2, "BB");
    scene.write(1);
    assertThat(scene.flushed(2)).containsExactly(1);
    scene.handle(1).close();
    scene.handle(2).close();

    slow.open();
    flush.join();
  }

  @Test
  void aSlowFlushKeepsNobodyFromConnectingReadingOrWriting() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    Gate slow = scene.stopFlushes(0);
    Running flush = scene.startFlush(1);
    slow.awaitReached();

    scene.open(1, "");
    scene.write(2);
    scene.read(2);
    scene.write(0);
    scene.read(0);

    slow.open();
    flush.join();
  }

  @Test
  void exportsOfDifferentCapabilitiesInOneGroupDoNotDisturbEachOther() throws IOException {
    Scene scene = Scene.emulating(1);
    scene.fake.capabilities = FakeBackend.WRITABLE.readOnly().without(Capability.FLUSH);
    scene.open(1, "flushless");
    scene.fake.capabilities = FakeBackend.WRITABLE.readOnly();
    scene.open(1, "read-only");
    scene.fake.capabilities = FakeBackend.MULTI_CONN;
    scene.open(1, "multi-conn");
    scene.fake.capabilities = FakeBackend.WRITABLE.without(Capability.FLUSH);
    assertThatThrownBy(() -> scene.open(1, "refused")).hasMessageContaining("flush");
    for (int i = 0; i < 4; i++) {
      scene.read(i);
    }
    scene.write(0);
    scene.write(3);

    assertThat(scene.flushed(0)).containsOnly(0, 2, 3);
    for (int i = 0; i < 4; i++) {
      scene.handle(i).close();
    }
    assertThat(scene.fake.handles).allMatch(handle -> handle.closed);
    assertThat(scene.fake.faults).isEmpty();
    assertThat(scene.filter.groups()).isZero();
  }
}
