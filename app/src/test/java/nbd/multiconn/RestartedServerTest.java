package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.util.Optional;
import nbd.protocol.NbdError;
import nbd.storage.LostException;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** Storage that is a multi-conn server, which forgets what was not flushed when it is restarted. */
class RestartedServerTest {

  @Test
  void aFlushThatTheNewServerAnswersDoesNotCoverWhatTheOldOneLost() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      for (boolean knows : new boolean[] {false, true}) {
        Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, tracking, 1);
        scene.write(0);
        restart(scene, knows);
        scene.open(2, "");
        scene.write(1);

        for (int connection = 1; connection < 3; connection++) {
          int number = connection;
          assertThatThrownBy(() -> scene.flush(number))
              .as("%s, knows: %s", tracking, knows)
              .hasMessageContaining("lost");
          scene.flush(number);
        }
        assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("restarted");
        scene.open(1, "");
        scene.flush(3);
      }
    }
  }

  @Test
  void theConnectionThatWroteIsToldAlsoWhenItIsTheFirstToFlush() throws IOException {
    Scene scene = multiConn(1);
    scene.write(0);
    restart(scene, false);
    scene.open(1, "");

    assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("restarted");
    assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("lost");
    scene.flush(1);
  }

  @Test
  void aWriteWhoseConnectionIsKnownToHaveBrokenIsNotCoveredByAnothers() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, tracking, 2);
      scene.write(0);
      scene.below(0).broken = () -> Optional.of("the cable is cut");

      assertThatThrownBy(() -> scene.flush(1)).as("%s", tracking).hasMessageContaining("lost");
      scene.flush(1);
      assertThatThrownBy(() -> scene.flush(0)).hasMessageContaining("the cable is cut");
    }
  }

  @Test
  void whatTheConnectionsOfAnOldSessionLostIsToldToThoseOfTheNewOne() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, tracking, 1);
      scene.write(0);
      restart(scene, true);
      scene.fake.storage = "a new session";
      scene.open(2, "");
      scene.write(1);

      for (int connection = 1; connection < 3; connection++) {
        int number = connection;
        assertThatThrownBy(() -> scene.flush(number))
            .as("%s", tracking)
            .hasMessageContaining("lost");
        scene.flush(number);
      }
      scene.handle(0).close();
      scene.open(1, "");
      scene.flush(3);
    }
  }

  @Test
  void whereAConnectionCameAfterTheWriteTheOneThatWroteIsFlushedAndNoOther() throws IOException {
    Scene scene = multiConn(1);
    scene.write(0);
    scene.open(1, "");
    scene.write(1);

    assertThat(scene.flushed(1)).containsExactly(0);
    assertThat(scene.flushed(0)).isEmpty();
  }

  @Test
  void aWriteThatIsAnsweredLaterProvesThatBothHaveTheSameServer() throws IOException {
    Scene scene = multiConn(1);
    scene.write(0);
    scene.open(1, "");
    scene.write(0);

    assertThat(scene.flushed(1)).containsExactly(1);
    assertThat(scene.flushed(0)).isEmpty();
  }

  @Test
  void aWriteThatFailsLaterProvesNothing() throws IOException {
    Scene scene = multiConn(1);
    scene.write(0);
    scene.open(1, "");
    scene.below(0).onWrite =
        () -> {
          throw new IOException("refused somewhere on the way");
        };
    assertThatThrownBy(() -> scene.write(0)).hasMessageContaining("refused");

    assertThat(scene.flushed(1)).containsExactly(0);
  }

  @Test
  void aWriteThatBeganBeforeTheOtherConnectionCameProvesNothing() throws IOException {
    Scene scene = multiConn(1);
    Gate inWrite = new Gate();
    scene.below(0).onWrite = inWrite;
    Running write = Running.start(() -> scene.write(0));
    inWrite.awaitReached();
    scene.open(1, "");
    inWrite.open();
    write.join();

    assertThat(scene.flushed(1)).containsExactly(0);
  }

  @Test
  void whatAConnectionThatHasGoneLeftIsNotCoveredByTheNewServer() throws IOException {
    Scene scene = multiConn(2);
    scene.write(0);
    scene.below(0).onFlush =
        () -> {
          throw new IOException("refused");
        };
    assertThatThrownBy(() -> scene.handle(0).close()).hasMessageContaining("refused");
    restart(scene, false);
    scene.open(1, "");

    assertThatThrownBy(() -> scene.flush(2)).hasMessageContaining("lost");
    scene.flush(2);
  }

  private static Scene multiConn(int connections) throws IOException {
    return Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, TrackDirty.CONNECTION, connections);
  }

  /** Breaks all connections. */
  private static void restart(Scene scene, boolean theyKnow) {
    FakeBackend.Hook broken =
        () -> {
          throw new LostException(NbdError.EIO, "the server was restarted");
        };
    for (FakeBackend.FakeHandle handle : scene.fake.handles) {
      handle.onRead = broken;
      handle.onWrite = broken;
      handle.onFlush = broken;
      if (theyKnow) {
        handle.broken = () -> Optional.of("the server was restarted");
      }
    }
  }
}
