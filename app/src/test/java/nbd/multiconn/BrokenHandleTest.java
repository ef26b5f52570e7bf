package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** What becomes of the writes of a handle that breaks under its connection, and of the others. */
class BrokenHandleTest {

  @Test
  void answeredWritesThatNoFlushCoveredFailTheNextFlushOfEveryConnectionOnce() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    breakHandle(scene, 0);
    scene.write(1);

    assertThatThrownBy(() -> scene.flush(1))
        .hasMessageContaining("lost")
        .hasMessageContaining("the cable is cut");
    assertThat(scene.fake.takeFlushed()).as("all are attempted").containsExactlyInAnyOrder(0, 1);
    scene.flush(1);
    assertThatThrownBy(() -> scene.flush(2)).hasMessageContaining("lost");
    scene.flush(2);
    assertThat(scene.fake.takeFlushed()).as("nothing enters it any more").isEmpty();
  }

  /** A server that is shutting down would be a reason to leave it, and theirs is not. */
  @Test
  void theOthersAreToldOfAnInputOutputErrorAlsoWhereTheHandleHasShutDown() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    scene.below(0).onFlush =
        () -> {
          throw new LostException(NbdError.ESHUTDOWN, "it was cut before");
        };

    assertThatThrownBy(() -> scene.flush(1))
        .isInstanceOfSatisfying(
            NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.EIO))
        .hasMessageContaining("it was cut before");
  }

  @Test
  void theConnectionItselfNeverFlushesWithSuccessAgain() throws IOException {
    Scene scene = Scene.emulating(1);
    scene.write(0);
    breakHandle(scene, 0);

    for (int i = 0; i < 3; i++) {
      assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("the cable is cut");
      assertThatThrownBy(() -> scene.write(0)).isInstanceOf(LostException.class);
    }
    scene.handle(0).close();
  }

  @Test
  void whatWasFlushedBeforeIsNotReportedAsLost() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    scene.flush(1);
    breakHandle(scene, 0);
    assertThatThrownBy(() -> scene.write(0)).isInstanceOf(LostException.class);

    scene.write(1);
    scene.flush(1);
    scene.handle(0).close();
    scene.flush(1);
  }

  @Test
  void aReaderThatHasBrokenKeepsNobodyFromFlushing() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.read(0);
    breakHandle(scene, 0);
    scene.write(1);

    assertThat(scene.flushed(1)).containsExactly(1, 0);
    scene.write(1);
    assertThat(scene.flushed(1)).containsExactly(1);
  }

  @Test
  void aConnectionThatLeavesItsBrokenHandleTellsTheOthers() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    breakHandle(scene, 0);
    scene.handle(0).close();

    assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("lost");
    scene.flush(1);
  }

  @Test
  void whereTheBackendIsMultiConnAnotherHandleIsFlushedInsteadAndTheLossTold() throws IOException {
    Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, TrackDirty.CONNECTION, 3);
    scene.write(0);
    scene.write(1);
    breakHandle(scene, 0);
    assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("the cable is cut");
    assertThat(scene.fake.takeFlushed()).containsExactly(0, 1);

    assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("lost");
    assertThat(scene.flushed(1)).isEmpty();
    assertThatThrownBy(() -> scene.flush(2)).hasMessageContaining("lost");
    scene.write(2);
    assertThat(scene.flushed(2)).containsExactly(2);
  }

  @Test
  void whereNothingIsPromisedNobodyElseIsTold() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      Scene scene = Scene.of(FakeBackend.WRITABLE, MultiConnMode.DISABLE, tracking, 2);
      scene.write(0);
      breakHandle(scene, 0);
      assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("the cable is cut");
      if (tracking != TrackDirty.FAST) {
        scene.write(1);
        scene.flush(1);
      }
    }
  }

  @Test
  void allWhoWaitForTheFlushThatFindsItAreTold() throws IOException {
    Scene scene = Scene.emulating(4);
    scene.write(0);
    Gate inFlush = new Gate();
    scene.below(0).onFlush =
        () -> {
          inFlush.run();
          throw lost();
        };
    Running first = scene.startFlush(1);
    inFlush.awaitReached();
    Running second = scene.startFlush(2);
    second.awaitParked();

    inFlush.open();

    assertThatThrownBy(first::join).hasMessageContaining("lost");
    assertThatThrownBy(second::join).hasMessageContaining("lost");
    assertThatThrownBy(() -> scene.flush(3)).hasMessageContaining("lost");
    for (int connection = 1; connection < 4; connection++) {
      scene.flush(connection);
    }
  }

  @Test
  void aWriteThatIsAnsweredWhenItsHandleHasJustBrokenIsToldAsLost() throws IOException {
    for (boolean hasWrittenBefore : new boolean[] {false, true}) {
      Scene scene = Scene.emulating(2);
      scene.read(0);
      scene.write(1);
      if (hasWrittenBefore) {
        scene.write(0);
      }
      Gate inWrite = new Gate();
      scene.below(0).onWrite = inWrite;
      Running write = Running.start(() -> scene.write(0));
      inWrite.awaitReached();
      scene.below(0).onFlush =
          () -> {
            throw lost();
          };
      if (hasWrittenBefore) {
        assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("lost");
      } else {
        scene.flush(1);
      }
      inWrite.open();
      write.join();

      assertThatThrownBy(() -> scene.flush(1))
          .as("written before: %s", hasWrittenBefore)
          .hasMessageContaining("lost")
          .hasMessageContaining("the cable is cut");
      scene.flush(1);
      scene.handle(0).close();
      scene.flush(1);
    }
  }

  @Test
  void aWriteWithFuaThatFailsForALossDoesNotCountAsTold() throws IOException {
    Scene scene = Scene.emulating(2);
    Handle client = new FuaFilter(scene.filter, FuaMode.EMULATE).open("", false);
    scene.write(0);
    breakHandle(scene, 0);

    assertThatThrownBy(() -> forcedWrite(client)).hasMessageContaining("lost");
    forcedWrite(client);
    assertThatThrownBy(client::flush).hasMessageContaining("lost");
    client.flush();
    assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("lost");
    scene.flush(1);
  }

  @Test
  void whoComesWhenOnlyAWriteWithFuaHasFailedIsToldToo() throws IOException {
    Scene scene = Scene.emulating(1);
    try (Handle client = new FuaFilter(scene.filter, FuaMode.EMULATE).open("", false)) {
      scene.write(0);
      breakHandle(scene, 0);
      assertThatThrownBy(() -> forcedWrite(client)).hasMessageContaining("lost");
    }
    scene.open(1, "");

    assertThatThrownBy(() -> scene.handle(1).flush()).hasMessageContaining("lost");
  }

  private static void forcedWrite(Handle handle) throws IOException {
    handle.write(ByteBuffer.allocate(512), 0, CommandFlags.of(CommandFlag.FUA));
  }

  private static LostException lost() {
    return new LostException(NbdError.EIO, "the cable is cut");
  }

  private static void breakHandle(Scene scene, int number) {
    FakeBackend.Hook broken =
        () -> {
          throw lost();
        };
    scene.below(number).onRead = broken;
    scene.below(number).onWrite = broken;
    scene.below(number).onFlush = broken;
  }
}
