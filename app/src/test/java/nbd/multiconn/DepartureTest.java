package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** What becomes of the writes of a connection that ends. */
class DepartureTest {

  @Test
  void writesOfAConnectionThatClosesAreFlushedBefore() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);

    scene.handle(0).close();

    assertThat(scene.fake.takeFlushed()).containsExactly(0);
    assertThat(scene.flushed(1)).isEmpty();
  }

  @Test
  void aConnectionThatWroteNothingClosesWithoutAFlush() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(1);
    scene.read(0);

    scene.handle(0).close();

    assertThat(scene.fake.flushed).isEmpty();
    assertThat(scene.filter.groups()).isOne();
    scene.handle(1).close();
    assertThat(scene.filter.groups()).isZero();
  }

  @Test
  void whatAClosedConnectionLostIsReportedOnceOnEveryConnection() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    failFlushes(scene, 0);
    assertThatThrownBy(() -> scene.handle(0).close()).hasMessageContaining("broken");
    assertThat(scene.below(0).closed).isTrue();

    for (int connection = 1; connection < 3; connection++) {
      int number = connection;
      assertThatThrownBy(() -> scene.flush(number))
          .hasMessageContaining("lost")
          .hasMessageContaining("broken");
      scene.flush(number);
    }
    scene.open(1, "");
    scene.flush(3);
  }

  @Test
  void whatNobodyWasToldIsReportedToWhoeverComesNext() throws IOException {
    Scene scene = Scene.emulating(1);
    scene.write(0);
    failFlushes(scene, 0);
    assertThatThrownBy(() -> scene.handle(0).close()).hasMessageContaining("broken");
    assertThat(scene.filter.groups()).isOne();

    scene.open(2, "");
    assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("lost");
    scene.flush(1);
    scene.open(1, "");
    scene.flush(3);
    assertThatThrownBy(() -> scene.flush(2)).as("was there before").hasMessageContaining("lost");
    for (int connection = 1; connection < 4; connection++) {
      scene.handle(connection).close();
    }
    assertThat(scene.filter.groups()).isZero();
  }

  @Test
  void whatWasLostOnOneExportIsNoOtherExportsConcern() throws IOException {
    Scene scene = Scene.byExportName(MultiConnMode.EMULATE);
    scene.open(1, "a");
    scene.open(1, "b");
    scene.write(0);
    failFlushes(scene, 0);
    assertThatThrownBy(() -> scene.handle(0).close()).hasMessageContaining("broken");

    scene.write(1);
    assertThat(scene.flushed(1)).containsExactly(1);
  }

  @Test
  void whereTheBackendIsMultiConnTheNextFlushOfTheExportTriesAgainUntilOneSucceeds()
      throws IOException {
    Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, TrackDirty.CONNECTION, 0);
    scene.open(2, "a");
    scene.open(1, "b");
    scene.write(0);
    failFlushes(scene, 0);
    assertThatThrownBy(() -> scene.handle(0).close()).hasMessageContaining("broken");

    assertThat(scene.flushed(2)).as("no other export's concern").isEmpty();
    failFlushes(scene, 1);
    for (int i = 0; i < 3; i++) {
      assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("broken");
    }
    scene.below(1).onFlush = () -> {};
    assertThat(scene.flushed(1)).containsExactly(1);
    assertThat(scene.flushed(1)).isEmpty();
  }

  @Test
  void whatAClosedConnectionOfAnotherNameLostIsReportedToEverybodyOfTheGroup() throws IOException {
    Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.EMULATE, TrackDirty.CONNECTION, 0);
    scene.open(1, "a");
    scene.open(2, "b");
    scene.write(0);
    failFlushes(scene, 0);
    assertThatThrownBy(() -> scene.handle(0).close()).hasMessageContaining("broken");

    for (int connection = 1; connection < 3; connection++) {
      int number = connection;
      assertThatThrownBy(() -> scene.flush(number)).hasMessageContaining("lost");
      scene.flush(number);
    }
    scene.open(1, "a");
    scene.flush(3);
    for (int connection = 1; connection < 4; connection++) {
      scene.handle(connection).close();
    }
    assertThat(scene.filter.groups()).isZero();
  }

  @Test
  void whatTheLastConnectionOfAMultiConnExportLostIsReportedToTheNextThatComes()
      throws IOException {
    Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, TrackDirty.CONNECTION, 1);
    scene.write(0);
    failFlushes(scene, 0);
    assertThatThrownBy(() -> scene.handle(0).close()).hasMessageContaining("broken");
    scene.open(1, "");

    assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("lost");
    scene.flush(1);
    scene.handle(1).close();
    assertThat(scene.filter.groups()).isZero();
  }

  @Test
  void whatIsLeftIsFlushedByTheLastConnectionThatCan() throws IOException {
    Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, TrackDirty.CONNECTION, 2);
    scene.write(0);
    failFlushes(scene, 0);
    assertThatThrownBy(() -> scene.handle(0).close()).hasMessageContaining("broken");
    scene.open(1, "");
    scene.fake.takeFlushed();

    scene.handle(1).close();

    assertThat(scene.fake.takeFlushed()).containsExactly(1);
    scene.flush(2);
  }

  @Test
  void aFlushOfOthersThatAlreadyRunsCoversTheOneThatCloses() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    Gate inFlush = scene.stopFlushes(0);
    Running flush = scene.startFlush(1);
    inFlush.awaitReached();
    Running close = Running.start(scene.handle(0)::close);
    close.awaitParked();

    inFlush.open();
    flush.join();
    close.join();

    assertThat(scene.fake.flushed).containsExactly(0);
    assertThat(scene.fake.faults).isEmpty();
  }

  @Test
  void noFlushEntersAClosedHandleAndCloseWaitsForThoseInside() throws IOException {
    Scene scene = Scene.emulating(4);
    scene.read(0);
    scene.write(1);
    Gate refresh = scene.stopFlushes(0);
    Running flush = scene.startFlush(2);
    refresh.awaitReached();
    scene.read(0);
    scene.write(1);
    Running another = scene.startFlush(3);
    another.awaitParked();
    Running close = Running.start(scene.handle(0)::close);
    close.awaitParked();

    refresh.open();
    close.join();
    flush.join();
    another.join();

    assertThat(scene.fake.faults).isEmpty();
    assertThat(scene.below(0).closed).isTrue();
  }

  @Test
  void aFlushThatWaitsForAHandleWhoseLastFlushFailsFailsToo() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    Gate inFlush = new Gate();
    scene.below(0).onFlush =
        () -> {
          inFlush.run();
          throw new IOException("broken");
        };
    Running close = Running.start(scene.handle(0)::close);
    inFlush.awaitReached();
    Running flush = scene.startFlush(1);
    flush.awaitParked();

    inFlush.open();

    assertThatThrownBy(close::join).hasMessageContaining("broken");
    assertThatThrownBy(flush::join).hasMessageContaining("broken");
    assertThatThrownBy(() -> scene.flush(2)).hasMessageContaining("lost");
  }

  @Test
  void whereNothingIsPromisedAConnectionClosesWithoutAFlush() throws IOException {
    for (MultiConnMode mode : new MultiConnMode[] {MultiConnMode.DISABLE, MultiConnMode.PLUGIN}) {
      Scene scene = Scene.of(FakeBackend.WRITABLE, mode, TrackDirty.CONNECTION, 2);
      scene.write(0);
      scene.handle(0).close();
      assertThat(scene.fake.flushed).isEmpty();
      assertThat(scene.flushed(1)).isEmpty();
    }
  }

  @Test
  void theNextFlushIsPassedOnWhenAWriterHasGoneWithoutOne() throws IOException {
    Scene unsafe = Scene.of(FakeBackend.WRITABLE, MultiConnMode.UNSAFE, TrackDirty.CONNECTION, 1);
    unsafe.write(0);
    unsafe.handle(0).close();
    unsafe.open(1, "");
    assertThat(unsafe.flushed(1)).containsExactly(1);
    assertThat(unsafe.flushed(1)).isEmpty();

    Scene fast = Scene.of(FakeBackend.WRITABLE, MultiConnMode.PLUGIN, TrackDirty.FAST, 1);
    fast.write(0);
    fast.handle(0).close();
    fast.open(1, "");
    assertThat(fast.flushed(1)).containsExactly(1);
    assertThat(fast.flushed(1)).isEmpty();
  }

  @Test
  void aFailingCloseIsToldToWhoeverCloses() throws IOException {
    Scene scene = Scene.emulating(1);
    scene.below(0).onClose =
        () -> {
          throw new IOException("cannot close");
        };

    assertThatThrownBy(() -> scene.handle(0).close()).hasMessage("cannot close");
    assertThat(scene.filter.groups()).isZero();
  }

  private static void failFlushes(Scene scene, int number) {
    scene.below(number).onFlush =
        () -> {
          throw new IOException("broken");
        };
  }
}
