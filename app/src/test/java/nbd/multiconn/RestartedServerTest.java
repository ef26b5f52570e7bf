package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import nbd.protocol.Command;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** Storage that is a multi-conn server, which forgets what was not flushed when it is restarted. */
class RestartedServerTest {

  @Test
  void aFlushThatTheNewServerAnswersDoesNotCoverWhatTheOldOneLost() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      for (boolean knows : new boolean[] {false, true}) {
        for (boolean flushesFirst : new boolean[] {false, true}) {
          Scene scene = Scene.of(Scene.MULTI_CONN, MultiConnMode.AUTO, tracking, 1);
          scene.write(0);
          restart(scene, knows);
          scene.open(2, "");
          if (flushesFirst) {
            assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("restarted");
          }
          scene.write(1);

          scene.assertLossReportedOnce(1, 2);
          assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("restarted");
          scene.open(1, "");
          scene.flush(3);
        }
      }
    }
  }

  @Test
  void aWriteWhoseConnectionIsKnownToHaveBrokenIsNotCoveredByAnothers() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      Scene scene = Scene.of(Scene.MULTI_CONN, MultiConnMode.AUTO, tracking, 2);
      scene.write(0);
      scene.below(0).cut("the cable is cut", true);

      scene.assertLossReportedOnce(1);
      assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("the cable is cut");
    }
  }

  @Test
  void whatTheConnectionsOfAnOldSessionLostIsReportedToThoseOfTheNewOne() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      Scene scene = Scene.of(Scene.MULTI_CONN, MultiConnMode.AUTO, tracking, 1);
      scene.write(0);
      restart(scene, true);
      scene.fake.identity("a new session");
      scene.open(2, "");
      scene.write(1);

      scene.assertLossReportedOnce(1, 2);
      scene.close(0);
      scene.open(1, "");
      scene.flush(3);
    }
  }

  @Test
  void whereAConnectionCameAfterTheWriteTheOneThatWroteIsFlushedAndNoOther() throws IOException {
    Scene scene = Scene.multiConn(1);
    scene.write(0);
    scene.open(1, "");
    scene.write(1);

    assertThat(scene.flushed(1)).containsExactly(0);
    assertThat(scene.flushed(0)).isEmpty();
  }

  @Test
  void aWriteThatIsAnsweredLaterProvesThatBothHaveTheSameServer() throws IOException {
    Scene scene = Scene.multiConn(1);
    scene.write(0);
    scene.open(1, "");
    scene.write(0);

    assertThat(scene.flushed(1)).containsExactly(1);
    assertThat(scene.flushed(0)).isEmpty();
  }

  @Test
  void aWriteThatFailsLaterProvesNothing() throws IOException {
    Scene scene = Scene.multiConn(1);
    scene.write(0);
    scene.open(1, "");
    scene.fake.fail(new IOException("refused somewhere on the way"), Command.WRITE);
    assertThatThrownBy(() -> scene.write(0)).hasMessageContaining("refused");

    assertThat(scene.flushed(1)).containsExactly(0);
  }

  @Test
  void aWriteThatBeganBeforeTheOtherConnectionCameProvesNothing() throws IOException {
    Scene scene = Scene.multiConn(1);
    Gate inWrite = scene.stop(0, Command.WRITE);
    Running write = scene.startWrite(0);
    inWrite.awaitReached();
    scene.open(1, "");
    inWrite.open();
    write.join();

    assertThat(scene.flushed(1)).containsExactly(0);
  }

  @Test
  void whatAConnectionThatHasGoneLeftIsNotCoveredByTheNewServer() throws IOException {
    Scene scene = Scene.multiConn(2);
    scene.write(0);
    scene.failFlushes(0);
    assertThatThrownBy(() -> scene.close(0)).hasMessageContaining("broken");
    restart(scene, false);
    scene.open(1, "");

    scene.assertLossReportedOnce(2);
  }

  /** Breaks all connections. */
  private static void restart(Scene scene, boolean theyKnow) {
    scene.fake.handles().forEach(handle -> handle.cut("the server was restarted", theyKnow));
  }
}
