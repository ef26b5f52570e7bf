package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** The writes of a handle that breaks under its connection, and those of the other handles. */
class BrokenHandleTest {

  @Test
  void answeredWritesThatNoFlushCoveredFailTheNextFlushOfEveryConnectionOnce() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    scene.cut(0);
    scene.write(1);

    assertThatThrownBy(() -> scene.flush(1))
        .hasMessageContaining("lost")
        .hasMessageContaining("the cable is cut");
    assertThat(scene.takeFlushed()).as("all are attempted").containsExactlyInAnyOrder(0, 1);
    scene.flush(1);
    scene.assertLossReportedOnce(2);
    assertThat(scene.takeFlushed()).as("nothing enters it any more").isEmpty();
  }

  /** ESHUTDOWN would make the others leave their server, which is not shutting down. */
  @Test
  void theOthersGetAnInputOutputErrorAlsoWhereTheHandleHasShutDown() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    scene.failFlushes(0, new LostException(NbdError.ESHUTDOWN, "it was cut before"));

    assertThatThrownBy(() -> scene.flush(1))
        .isInstanceOfSatisfying(
            NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.EIO))
        .hasMessageContaining("it was cut before");
  }

  @Test
  void theConnectionItselfNeverFlushesWithSuccessAgain() throws IOException {
    Scene scene = Scene.emulating(1);
    scene.write(0);
    scene.cut(0);

    for (int i = 0; i < 3; i++) {
      assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("the cable is cut");
      assertThatThrownBy(() -> scene.write(0)).isInstanceOf(LostException.class);
    }
    scene.close(0);
  }

  @Test
  void whatWasFlushedBeforeIsNotReportedAsLost() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    scene.flush(1);
    scene.cut(0);
    assertThatThrownBy(() -> scene.write(0)).isInstanceOf(LostException.class);

    scene.write(1);
    scene.flush(1);
    scene.close(0);
    scene.flush(1);
  }

  @Test
  void aReaderThatHasBrokenKeepsNobodyFromFlushing() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.read(0);
    scene.cut(0);
    scene.write(1);

    assertThat(scene.flushed(1)).containsExactly(1, 0);
    scene.write(1);
    assertThat(scene.flushed(1)).containsExactly(1);
  }

  @Test
  void aConnectionThatLeavesItsBrokenHandleLeavesAReportToTheOthers() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    scene.cut(0);
    scene.close(0);

    scene.assertLossReportedOnce(1);
  }

  @Test
  void whereTheBackendIsMultiConnAnotherHandleIsFlushedInsteadAndTheLossReported()
      throws IOException {
    Scene scene = Scene.multiConn(3);
    scene.write(0, 1);
    scene.cut(0);
    assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("the cable is cut");
    assertThat(scene.takeFlushed()).containsExactly(0, 1);

    scene.assertLossReportedOnce(1, 2);
    scene.write(2);
    assertThat(scene.flushed(2)).containsExactly(2);
  }

  @Test
  void whereNothingIsPromisedTheOthersGetNoReport() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      Scene scene = Scene.of(Scene.WRITABLE, MultiConnMode.DISABLE, tracking, 2);
      scene.write(0);
      scene.cut(0);
      assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("the cable is cut");
      if (tracking != TrackDirty.FAST) {
        scene.write(1);
        scene.flush(1);
      }
    }
  }

  @Test
  void allThatWaitForTheFlushThatFindsALossFailWithIt() throws IOException {
    Scene scene = Scene.emulating(4);
    scene.write(0);
    Gate inFlush = scene.stopAndFailFlushes(0, new LostException(NbdError.EIO, "the cable is cut"));
    Running first = scene.startFlush(1);
    inFlush.awaitReached();
    Running second = scene.startFlush(2);
    second.awaitParked();

    inFlush.open();

    assertThatThrownBy(first::join).hasMessageContaining("lost");
    assertThatThrownBy(second::join).hasMessageContaining("lost");
    scene.assertLossReportedOnce(3);
    scene.flush(1);
    scene.flush(2);
  }

  @Test
  void aWriteThatIsAnsweredWhenItsHandleHasJustBrokenIsReportedAsLost() throws IOException {
    for (boolean hasWrittenBefore : new boolean[] {false, true}) {
      Scene scene = Scene.emulating(2);
      scene.read(0);
      scene.write(1);
      if (hasWrittenBefore) {
        scene.write(0);
      }
      Gate inWrite = scene.stop(0, Command.WRITE);
      Running write = scene.startWrite(0);
      inWrite.awaitReached();
      scene.failFlushes(0, new LostException(NbdError.EIO, "the cable is cut"));
      if (hasWrittenBefore) {
        assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("lost");
      } else {
        scene.flush(1);
      }
      inWrite.open();
      write.join();

      scene.assertLossReportedOnce(1);
      scene.close(0);
      scene.flush(1);
    }
  }

  @Test
  void aWriteWithFuaThatFailsForALossIsNoReportOfIt() throws IOException {
    Scene scene = Scene.emulating(2);
    try (Handle client = new FuaFilter(scene.filter, FuaMode.EMULATE).open("", false)) {
      scene.write(0);
      scene.cut(0);

      assertThatThrownBy(() -> forcedWrite(client)).hasMessageContaining("lost");
      forcedWrite(client);
      assertThatThrownBy(client::flush).hasMessageContaining("lost");
      client.flush();
      scene.assertLossReportedOnce(1);
    }
  }

  @Test
  void aClientThatComesWhenOnlyAWriteWithFuaHasFailedGetsTheReport() throws IOException {
    Scene scene = Scene.emulating(1);
    try (Handle client = new FuaFilter(scene.filter, FuaMode.EMULATE).open("", false)) {
      scene.write(0);
      scene.cut(0);
      assertThatThrownBy(() -> forcedWrite(client)).hasMessageContaining("lost");
    }
    scene.open(1, "");

    scene.assertLossReportedOnce(1);
  }

  private static void forcedWrite(Handle handle) throws IOException {
    handle.write(ByteBuffer.allocate(512), 0, CommandFlags.of(CommandFlag.FUA));
  }
}
