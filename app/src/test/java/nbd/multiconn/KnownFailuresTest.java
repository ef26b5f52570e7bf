package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import nbd.protocol.Command;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capability;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** The ways in which other filters of this kind break the promise, each driven step by step. */
class KnownFailuresTest {

  @Test
  void aWriteInFlightDuringAFlushIsCoveredByTheNext() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    Gate inWrite = scene.stop(0, Command.WRITE);
    Running write = scene.startWrite(0);
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
    Gate inFlush = scene.stopFlush(0);
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
    scene.write(0, 1);
    Gate fast = scene.stopFlush(0);
    Gate slow = scene.stopFlush(1);
    Running flush = scene.startFlush(2);
    fast.awaitReached();
    slow.awaitReached();
    fast.open();
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
    Gate inFlush = scene.stopFlush(1);
    Running flush = scene.startFlush(2);
    inFlush.awaitReached();
    assertThat(scene.takeFlushed()).containsExactly(1);

    inFlush.open();
    flush.join();

    assertThat(scene.takeFlushed()).containsExactly(0);
  }

  @Test
  void aWriterThatReadsBetweenItsOwnFlushAndASlowOnesIsFlushedAgain() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0, 1);
    Gate fast = scene.stopFlush(0);
    Gate slow = scene.stopFlush(1);
    Running flush = scene.startFlush(2);
    fast.awaitReached();
    slow.awaitReached();
    scene.read(0);
    fast.open();
    slow.open();
    flush.join();

    assertThat(scene.takeFlushed()).hasSize(3).last().isEqualTo(0);
  }

  @Test
  void aReadInFlightOverAFlushHasToEndBeforeItsHandleIsFlushed() throws IOException {
    Scene scene = Scene.emulating(3);
    Gate inRead = scene.stop(0, Command.READ);
    Running read = scene.startRead(0);
    inRead.awaitReached();
    scene.write(1);
    Running flush = scene.startFlush(2);
    flush.awaitParked();
    assertThat(scene.takeFlushed()).containsExactly(1);

    inRead.open();
    read.join();
    flush.join();

    assertThat(scene.takeFlushed()).containsExactly(0);
    assertThat(scene.flushed(2)).isEmpty();
  }

  @Test
  void readsThatBeginLaterAreNotWaitedFor() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.read(0);
    scene.write(1);
    Gate refresh = scene.stopFlush(0);
    Running flush = scene.startFlush(2);
    refresh.awaitReached();
    Gate inRead = scene.stop(0, Command.READ);
    Running read = scene.startRead(0);
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
    Gate first = scene.stop(0, Command.READ);
    Running before = scene.startRead(0);
    first.awaitReached();
    scene.write(1);
    Running flush = scene.startFlush(2);
    flush.awaitParked();
    Gate second = scene.stop(0, Command.READ);
    Running after = scene.startRead(0);
    second.awaitReached();

    first.open();
    before.join();
    flush.join();

    assertThat(scene.takeFlushed()).containsExactly(1, 0);
    second.open();
    after.join();
  }

  @Test
  void aFlushThatFindsAllCoveredStillWaitsForTheReaderThatIsBeingRefreshed() throws IOException {
    Scene scene = Scene.emulating(4);
    scene.read(0);
    scene.write(1);
    Gate refresh = scene.stopFlush(0);
    Running first = scene.startFlush(2);
    refresh.awaitReached();
    Running second = scene.startFlush(3);
    second.awaitParked();

    refresh.open();
    first.join();
    second.join();

    assertThat(scene.takeFlushed()).containsExactly(1, 0);
  }

  @Test
  void twoMultiConnExportsInOneGroupAreFlushedEachForItself() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      Scene scene = Scene.of(Scene.MULTI_CONN, MultiConnMode.AUTO, tracking, 0);
      scene.open(1, "a");
      scene.open(1, "b");
      scene.write(0, 1);

      assertThat(scene.flushed(0)).as("%s", tracking).containsExactly(0);
      assertThat(scene.flushed(1)).as("%s", tracking).containsExactly(1);
    }
  }

  @Test
  void aFlushOfAFileThatWasReplacedDoesNotCountForTheOneThatHasItsNameNow() throws IOException {
    Scene scene = Scene.multiConn(1);
    scene.fake.identity("the file that replaced it");
    scene.open(2, "");
    scene.write(0, 1);

    assertThat(scene.flushed(2)).containsExactly(2);
    assertThat(scene.flushed(0)).containsExactly(0);
    scene.assertForgottenAfterClosing(0, 1, 2);
  }

  @Test
  void anEmulatedFlushCoversEachNameOfAMultiConnBackendByItself() throws IOException {
    Scene scene = Scene.of(Scene.MULTI_CONN, MultiConnMode.EMULATE, TrackDirty.CONNECTION, 0);
    scene.open(2, "a");
    scene.open(2, "b");
    scene.write(0, 2, 3);

    assertThat(scene.flushed(1)).containsExactlyInAnyOrder(1, 2);
    assertThat(scene.flushed(3)).isEmpty();
  }

  @Test
  void handlesWhoseFlushesFailDoNotKeepTheOthersFromBeingFlushed() throws IOException {
    Scene scene = Scene.emulating(4);
    scene.write(0, 1, 2);
    scene.read(3);
    for (int i = 0; i < 2; i++) {
      scene.failFlushes(i, new NbdException(NbdError.ENOSPC, "no space left"));
    }

    assertThatThrownBy(() -> scene.flush(3))
        .isInstanceOfSatisfying(
            NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.ENOSPC))
        .hasMessageContaining("no space left")
        .satisfies(e -> assertThat(e.getSuppressed()).hasSize(1));
    assertThat(scene.takeFlushed()).contains(0, 1, 2);
    scene.heal(1);
    assertThatThrownBy(() -> scene.flush(3)).hasMessageContaining("no space left");
    assertThat(scene.takeFlushed()).containsExactlyInAnyOrder(0, 1);
    scene.heal(0);
    assertThat(scene.flushed(3)).startsWith(0);
    assertThat(scene.flushed(3)).isEmpty();
  }

  @Test
  void aFailedWriteIsFlushedSinceItMayHaveChangedSomething() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.fake.fail(new IOException("broken"), Command.WRITE);
    assertThatThrownBy(() -> scene.write(0)).hasMessage("broken");

    assertThat(scene.flushed(1)).containsExactly(0);
  }

  @Test
  void aSlowFlushOfOneExportKeepsNobodyFromAnother() throws IOException {
    // These names have the same hash code, and so the same bin of the table.
    Scene scene =
        Scene.of(
            Scene.WRITABLE,
            new MultiConnSettings(MultiConnMode.EMULATE, TrackDirty.CONNECTION, true, false));
    scene.open(1, "Aa");
    scene.write(0);
    Gate slow = scene.stopFlush(0);
    Running flush = scene.startFlush(0);
    slow.awaitReached();

    scene.open(2, "BB");
    scene.write(1);
    assertThat(scene.flushed(2)).containsExactly(1);
    scene.close(1, 2);

    slow.open();
    flush.join();
  }

  @Test
  void aSlowFlushKeepsNobodyFromConnectingReadingOrWriting() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    Gate slow = scene.stopFlush(0);
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
    scene.fake.capabilities(Scene.WRITABLE.readOnly().without(Capability.FLUSH));
    scene.open(1, "flushless");
    scene.fake.capabilities(Scene.WRITABLE.readOnly());
    scene.open(1, "read-only");
    scene.fake.capabilities(Scene.MULTI_CONN);
    scene.open(1, "multi-conn");
    scene.fake.capabilities(Scene.WRITABLE.without(Capability.FLUSH));
    assertThatThrownBy(() -> scene.open(1, "refused")).hasMessageContaining("flush");
    for (int i = 0; i < 4; i++) {
      scene.read(i);
    }
    scene.write(0, 3);

    assertThat(scene.flushed(0)).containsOnly(0, 2, 3);
    scene.assertForgottenAfterClosing(0, 1, 2, 3);
    assertThat(scene.fake.openHandles()).isZero();
  }
}
