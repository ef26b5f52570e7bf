package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.util.List;
import nbd.storage.Capabilities;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** The writes of a connection that ends: flushed, or remembered as losses. */
class DepartureTest {

  @Test
  void writesOfAConnectionThatClosesAreFlushedBefore() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);

    scene.close(0);

    assertThat(scene.takeFlushed()).containsExactly(0);
    assertThat(scene.flushed(1)).isEmpty();
  }

  @Test
  void aConnectionThatWroteNothingClosesWithoutAFlush() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(1);
    scene.read(0);

    scene.close(0);

    assertThat(scene.takeFlushed()).isEmpty();
    assertThat(scene.filter.groups()).isOne();
    scene.assertForgottenAfterClosing(1);
  }

  @Test
  void whatAClosedConnectionLostIsReportedOnceOnEveryConnection() throws IOException {
    for (Capabilities storage : List.of(Scene.WRITABLE, Scene.MULTI_CONN)) {
      Scene scene = Scene.of(storage, MultiConnMode.EMULATE, TrackDirty.CONNECTION, 1);
      scene.open(2, "another name");
      losesItsWritesWhenItCloses(scene, 0);
      assertThat(scene.below(0).isOpen()).isFalse();

      scene.assertLossReportedOnce(1, 2);
      scene.open(1, "");
      scene.flush(3);
      scene.assertForgottenAfterClosing(1, 2, 3);
    }
  }

  @Test
  void aLossThatNobodyGotAReportOfIsReportedToTheNextThatComes() throws IOException {
    for (Capabilities storage : List.of(Scene.WRITABLE, Scene.MULTI_CONN)) {
      Scene scene = Scene.of(storage, MultiConnMode.AUTO, TrackDirty.CONNECTION, 1);
      losesItsWritesWhenItCloses(scene, 0);
      assertThat(scene.filter.groups()).isOne();

      scene.open(2, "");
      scene.assertLossReportedOnce(1);
      scene.open(1, "");
      scene.flush(3);
      scene.assertLossReportedOnce(2);
      scene.assertForgottenAfterClosing(1, 2, 3);
    }
  }

  @Test
  void whatWasLostOnOneExportIsNoOtherExportsConcern() throws IOException {
    Scene scene =
        Scene.of(
            Scene.WRITABLE,
            new MultiConnSettings(MultiConnMode.EMULATE, TrackDirty.CONNECTION, true, false));
    scene.open(1, "a");
    scene.open(1, "b");
    losesItsWritesWhenItCloses(scene, 0);

    scene.write(1);
    assertThat(scene.flushed(1)).containsExactly(1);
  }

  @Test
  void whereTheBackendIsMultiConnTheNextFlushOfTheExportTriesAgainUntilOneSucceeds()
      throws IOException {
    Scene scene = Scene.multiConn(2);
    scene.open(1, "another name");
    losesItsWritesWhenItCloses(scene, 0);

    assertThat(scene.flushed(2)).as("no other export's concern").isEmpty();
    scene.failFlushes(1);
    for (int i = 0; i < 3; i++) {
      assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("broken");
    }
    scene.heal(1);
    assertThat(scene.flushed(1)).containsExactly(1);
    assertThat(scene.flushed(1)).isEmpty();
  }

  @Test
  void whatIsLeftIsFlushedByTheLastConnectionThatCan() throws IOException {
    Scene scene = Scene.multiConn(2);
    losesItsWritesWhenItCloses(scene, 0);
    scene.open(1, "");
    scene.takeFlushed();

    scene.close(1);

    assertThat(scene.takeFlushed()).containsExactly(1);
    scene.flush(2);
  }

  @Test
  void aFlushOfOthersThatAlreadyRunsCoversTheOneThatCloses() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    Gate inFlush = scene.stopFlush(0);
    Running flush = scene.startFlush(1);
    inFlush.awaitReached();
    Running close = Running.start(() -> scene.close(0));
    close.awaitParked();

    inFlush.open();
    flush.join();
    close.join();

    assertThat(scene.takeFlushed()).containsExactly(0);
  }

  @Test
  void noFlushEntersAClosedHandleAndCloseWaitsForThoseInside() throws IOException {
    Scene scene = Scene.emulating(4);
    scene.read(0);
    scene.write(1);
    Gate refresh = scene.stopFlush(0);
    Running flush = scene.startFlush(2);
    refresh.awaitReached();
    scene.read(0);
    scene.write(1);
    Running another = scene.startFlush(3);
    another.awaitParked();
    Running close = Running.start(() -> scene.close(0));
    close.awaitParked();

    refresh.open();
    close.join();
    flush.join();
    another.join();

    scene.takeFlushed();
    assertThat(scene.below(0).isOpen()).isFalse();
  }

  @Test
  void aFlushThatWaitsForAHandleWhoseLastFlushFailsFailsToo() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    Gate inFlush = scene.stopAndFailFlushes(0, new IOException("broken"));
    Running close = Running.start(() -> scene.close(0));
    inFlush.awaitReached();
    Running flush = scene.startFlush(1);
    flush.awaitParked();

    inFlush.open();

    assertThatThrownBy(close::join).hasMessageContaining("broken");
    assertThatThrownBy(flush::join).hasMessageContaining("broken");
    scene.assertLossReportedOnce(2);
  }

  @Test
  void whereNothingIsPromisedAConnectionClosesWithoutAFlush() throws IOException {
    for (MultiConnMode mode : List.of(MultiConnMode.DISABLE, MultiConnMode.PLUGIN)) {
      Scene scene = Scene.of(Scene.WRITABLE, mode, TrackDirty.CONNECTION, 2);
      scene.write(0);
      scene.close(0);
      assertThat(scene.takeFlushed()).isEmpty();
      assertThat(scene.flushed(1)).isEmpty();
    }
  }

  @Test
  void theNextFlushIsPassedOnWhenAWriterHasGoneWithoutOne() throws IOException {
    for (Scene scene :
        List.of(
            Scene.of(Scene.WRITABLE, MultiConnMode.UNSAFE, TrackDirty.CONNECTION, 1),
            Scene.of(Scene.WRITABLE, MultiConnMode.PLUGIN, TrackDirty.FAST, 1))) {
      scene.write(0);
      scene.close(0);
      scene.open(1, "");
      assertThat(scene.flushed(1)).containsExactly(1);
      assertThat(scene.flushed(1)).isEmpty();
    }
  }

  @Test
  void aCloseThatFailsIsForgottenAndItsCallerGetsTheFailure() throws IOException {
    Scene scene = Scene.emulating(1);
    scene
        .below(0)
        .closing(
            () -> {
              throw new IOException("cannot close");
            });

    assertThatThrownBy(() -> scene.close(0)).hasMessage("cannot close");
    assertThat(scene.filter.groups()).isZero();
  }

  /** Writes on a connection, and closes it while its flushes fail. */
  private static void losesItsWritesWhenItCloses(Scene scene, int number) throws IOException {
    scene.write(number);
    scene.failFlushes(number);
    assertThatThrownBy(() -> scene.close(number)).hasMessageContaining("broken");
  }
}
