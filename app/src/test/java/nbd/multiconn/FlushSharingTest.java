package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.util.ArrayList;
import java.util.List;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Operation;
import nbd.storage.ReadTarget;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** No more flushes than are needed, and those that are at the same time. */
class FlushSharingTest {

  @Test
  void handlesAreFlushedAtTheSameTime() throws IOException {
    Scene scene = Scene.emulating(4);
    Gate[] gates = new Gate[3];
    for (int i = 0; i < 3; i++) {
      scene.write(i);
      gates[i] = scene.stopFlushes(i);
    }
    Running flush = scene.startFlush(3);
    for (Gate gate : gates) {
      gate.awaitReached();
    }
    for (Gate gate : gates) {
      gate.open();
    }
    flush.join();
  }

  @Test
  void aFlushWhoseWritesTheRunningOneCoversUsesThat() throws IOException {
    Scene scene = Scene.emulating(10);
    scene.write(0);
    Gate inFlush = scene.stopFlushes(0);
    List<Running> flushes = startFlushes(scene, 10);
    inFlush.awaitReached();
    for (Running flush : flushes) {
      flush.awaitParked();
    }

    inFlush.open();
    joinAll(flushes);

    assertThat(scene.fake.flushed).containsExactly(0);
  }

  @Test
  void flushesThatArriveWhileOneRunsShareTheNext() throws IOException {
    Scene scene = Scene.emulating(10);
    sharesTheNext(scene);
  }

  @Test
  void whereTheBackendIsMultiConnTheWholeExportShares() throws IOException {
    Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.PLUGIN, TrackDirty.CONNECTION, 10);
    scene.write(0);
    Gate inFlush = scene.stopFlushes(0);
    Running first = scene.startFlush(0);
    inFlush.awaitReached();
    for (int i = 0; i < 10; i++) {
      scene.write(i);
    }
    List<Running> flushes = startFlushes(scene, 10);
    for (Running flush : flushes) {
      flush.awaitParked();
    }
    scene.below(0).onFlush = () -> {};

    inFlush.open();
    first.join();
    joinAll(flushes);

    assertThat(scene.fake.flushed).hasSize(2).startsWith(0);
    assertThat(scene.flushed(3)).isEmpty();
  }

  private static void sharesTheNext(Scene scene) throws IOException {
    scene.write(0);
    Gate inFlush = scene.stopFlushes(0);
    Running first = scene.startFlush(1);
    inFlush.awaitReached();
    scene.write(0);
    List<Running> flushes = startFlushes(scene, 10);
    for (Running flush : flushes) {
      flush.awaitParked();
    }
    scene.below(0).onFlush = () -> {};

    inFlush.open();
    first.join();
    joinAll(flushes);

    assertThat(scene.fake.flushed).containsExactly(0, 0);
  }

  @Test
  void withoutTrackingEveryFlushIsPassedOn() throws IOException {
    Scene scene = Scene.of(FakeBackend.WRITABLE, MultiConnMode.EMULATE, TrackDirty.OFF, 3);
    Gate inFlush = scene.stopFlushes(0);
    List<Running> flushes = startFlushes(scene, 3);
    inFlush.awaitReached();
    for (Running flush : flushes) {
      flush.awaitParked();
    }
    inFlush.open();
    joinAll(flushes);

    assertThat(scene.fake.flushed).hasSize(9);
  }

  @Test
  void whoSharesAFlushThatFailsFailsWithAnErrorOfItsOwn() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    Gate inFlush = new Gate();
    scene.below(0).onFlush =
        () -> {
          inFlush.run();
          throw new IOException("broken");
        };
    List<Running> flushes = startFlushes(scene, 3);
    inFlush.awaitReached();
    for (Running flush : flushes) {
      flush.awaitParked();
    }
    inFlush.open();

    List<Throwable> thrown = new ArrayList<>();
    for (Running flush : flushes) {
      assertThatThrownBy(flush::join).hasMessage("broken").satisfies(thrown::add);
    }
    assertThat(thrown).doesNotHaveDuplicates();
    scene.below(0).onFlush = () -> {};
    assertThat(scene.flushed(2)).as("nothing was marked clean").containsExactly(0);
  }

  @Test
  void aConnectionThatReadsItsOwnWritesIsFlushedOnce() throws IOException {
    Scene scene = Scene.emulating(2);
    for (int i = 0; i < 3; i++) {
      scene.read(0);
      scene.write(0);
      scene.read(0);
      assertThat(scene.flushed(0)).containsExactly(0);
    }
    Gate inRead = new Gate();
    scene.below(0).onRead = inRead;
    Running read = Running.start(() -> scene.read(0));
    inRead.awaitReached();
    scene.write(0);
    assertThat(scene.flushed(1)).as("its own read is not waited for").containsExactly(0);
    inRead.open();
    read.join();
    assertThat(scene.flushed(1)).isEmpty();
  }

  @Test
  void readersThatHaveReadNothingSinceAreLeftAlone() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.read(0);
    scene.write(1);
    assertThat(scene.flushed(2)).containsExactly(1, 0);
    scene.write(1);
    assertThat(scene.flushed(2)).containsExactly(1);
    scene.read(0);
    assertThat(scene.flushed(2)).isEmpty();
  }

  @Test
  void theFastPathIsFollowedToo() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.handle(0).tryNow(Operation.read(ByteBuffer.allocate(512), 0));
    scene.handle(1).tryNow(Operation.write(ByteBuffer.allocate(512), 0, CommandFlags.NONE));
    assertThat(scene.flushed(2)).containsExactly(1, 0);
    scene.handle(0).cache(0, 512);
    scene.handle(1).tryNow(Operation.write(ByteBuffer.allocate(512), 0, CommandFlags.NONE));
    assertThat(scene.flushed(2)).containsExactly(1, 0);
    assertThat(scene.handle(0).tryNow(Operation.transfer(0, 512, NOWHERE))).isFalse();
    scene.handle(1).tryNow(Operation.write(ByteBuffer.allocate(512), 0, CommandFlags.NONE));
    assertThat(scene.flushed(2)).containsExactly(1, 0);
  }

  @Test
  void aFastZeroThatIsNotFastCostsNoFlush() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.below(0).onWrite =
        () -> {
          throw new NbdException(NbdError.ENOTSUP, "not fast");
        };
    assertThatThrownBy(() -> scene.handle(0).zero(0, 512, CommandFlags.of(CommandFlag.FAST_ZERO)))
        .hasMessage("not fast");
    assertThat(scene.flushed(1)).isEmpty();
    assertThatThrownBy(() -> scene.handle(0).zero(0, 512, CommandFlags.NONE))
        .hasMessage("not fast");
    assertThat(scene.flushed(1)).containsExactly(0);
  }

  @Test
  void aWriteThatIsDurableAndVisibleByItselfNeedsNoFlush() throws IOException {
    Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, TrackDirty.CONNECTION, 2);
    scene.handle(0).write(ByteBuffer.allocate(512), 0, CommandFlags.of(CommandFlag.FUA));
    assertThat(scene.flushed(1)).isEmpty();
    scene.below(0).onWrite =
        () -> {
          throw new IOException("broken");
        };
    assertThatThrownBy(
            () ->
                scene
                    .handle(0)
                    .write(ByteBuffer.allocate(512), 0, CommandFlags.of(CommandFlag.FUA)))
        .hasMessage("broken");
    assertThat(scene.flushed(1)).containsExactly(1);
  }

  @Test
  void whereEachFlushesForItselfAReaderIsRefreshedByItsOwnFlush() throws IOException {
    Scene scene = Scene.of(FakeBackend.WRITABLE, MultiConnMode.DISABLE, TrackDirty.CONNECTION, 2);
    scene.read(0);
    scene.write(1);
    assertThat(scene.flushed(1)).containsExactly(1);
    assertThat(scene.flushed(0)).containsExactly(0);
    assertThat(scene.flushed(0)).isEmpty();
    Gate inRead = new Gate();
    scene.below(0).onRead = inRead;
    Running read = Running.start(() -> scene.read(0));
    inRead.awaitReached();
    scene.write(1);
    scene.flush(1);
    assertThat(scene.flushed(0)).as("does not wait for the read").containsExactly(0);
    inRead.open();
    read.join();
    assertThat(scene.flushed(0)).as("but remembers it").containsExactly(0);
    assertThat(scene.flushed(0)).isEmpty();
  }

  private static final ReadTarget NOWHERE =
      new ReadTarget() {
        @Override
        public WritableByteChannel begin() {
          throw new AssertionError("not needed");
        }

        @Override
        public void sent(long bytes) {
          throw new AssertionError("not needed");
        }

        @Override
        public ByteBuffer piece() {
          throw new AssertionError("not needed");
        }

        @Override
        public void write(ByteBuffer piece) {
          throw new AssertionError("not needed");
        }
      };

  private static List<Running> startFlushes(Scene scene, int connections) {
    List<Running> flushes = new ArrayList<>();
    for (int i = 0; i < connections; i++) {
      flushes.add(scene.startFlush(i));
    }
    return flushes;
  }

  private static void joinAll(List<Running> flushes) throws IOException {
    for (Running flush : flushes) {
      flush.join();
    }
  }
}
