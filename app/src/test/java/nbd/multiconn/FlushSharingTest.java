package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Operation;
import nbd.storage.ReadTarget;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** Flushes that are shared: no more of them than are needed, and those at the same time. */
class FlushSharingTest {
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);

  @Test
  void handlesAreFlushedAtTheSameTime() throws IOException {
    Scene scene = Scene.emulating(4);
    scene.write(0, 1, 2);
    List<Gate> gates = IntStream.range(0, 3).mapToObj(scene::stopFlush).toList();
    Running flush = scene.startFlush(3);
    gates.forEach(Gate::awaitReached);
    gates.forEach(Gate::open);
    flush.join();
  }

  @Test
  void aFlushWhoseWritesTheRunningOneCoversUsesThat() throws IOException {
    Scene scene = Scene.emulating(10);
    scene.write(0);
    Gate inFlush = scene.stopFlush(0);
    List<Running> flushes = scene.startFlushes(10);

    inFlush.open();
    Scene.joinAll(flushes);

    assertThat(scene.takeFlushed()).containsExactly(0);
  }

  @Test
  void flushesThatArriveWhileOneRunsShareTheNext() throws IOException {
    Scene scene = Scene.emulating(10);
    flushWhileOneRuns(scene, 0);

    assertThat(scene.takeFlushed()).containsExactly(0, 0);
  }

  @Test
  void whereTheBackendIsMultiConnTheWholeExportShares() throws IOException {
    Scene scene = Scene.of(Scene.MULTI_CONN, MultiConnMode.PLUGIN, TrackDirty.CONNECTION, 10);
    flushWhileOneRuns(scene, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9);

    assertThat(scene.takeFlushed()).hasSize(2).startsWith(0);
    assertThat(scene.flushed(3)).isEmpty();
  }

  /**
   * Flushes on ten connections while the first handle is being flushed, and some have written
   * since.
   */
  private static void flushWhileOneRuns(Scene scene, int... writers) throws IOException {
    scene.write(0);
    Gate inFlush = scene.stopFlush(0);
    Running first = scene.startFlush(0);
    inFlush.awaitReached();
    scene.write(writers);
    List<Running> flushes = scene.startFlushes(10);

    inFlush.open();
    first.join();
    Scene.joinAll(flushes);
  }

  @Test
  void withoutTrackingEveryFlushIsPassedOn() throws IOException {
    Scene scene = Scene.of(Scene.WRITABLE, MultiConnMode.EMULATE, TrackDirty.OFF, 3);
    Gate inFlush = scene.stopFlush(0);
    List<Running> flushes = scene.startFlushes(3);
    inFlush.open();
    Scene.joinAll(flushes);

    assertThat(scene.takeFlushed()).hasSize(9);
  }

  @Test
  void clientsThatShareAFlushThatFailsEachGetAnErrorOfTheirOwn() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    Gate inFlush = scene.stopAndFailFlushes(0, new IOException("broken"));
    List<Running> flushes = scene.startFlushes(3);
    inFlush.open();

    List<Throwable> thrown = new ArrayList<>();
    for (Running flush : flushes) {
      assertThatThrownBy(flush::join).hasMessage("broken").satisfies(thrown::add);
    }
    assertThat(thrown).doesNotHaveDuplicates();
    scene.heal(0);
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
    Gate inRead = scene.stop(0, Command.READ);
    Running read = scene.startRead(0);
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
  void everyKindOfReadIsMarked() throws IOException {
    Scene scene = Scene.emulating(3);
    ByteBuffer data = ByteBuffer.allocate(512);
    Operation ahead = Operation.onRange(Command.CACHE, 0, 512, CommandFlags.NONE);
    for (Operation read :
        List.of(
            Operation.read(data, 0),
            Operation.extents(0, 512, 1),
            ahead,
            new Operation().transferring(0, 512, NOWHERE))) {
      assertThat(scene.handle(0).tryNow(read)).isEqualTo(!read.isTransfer());
      scene.handle(1).tryNow(Operation.write(data.clear(), 0, CommandFlags.NONE));
      assertThat(scene.flushed(2)).as("%s", read.command()).containsExactly(1, 0);
    }
  }

  @Test
  void aFastZeroThatIsNotFastCostsNoFlush() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.fake.fail(new NbdException(NbdError.ENOTSUP, "not fast"), Command.WRITE_ZEROES);
    assertThatThrownBy(() -> scene.handle(0).zero(0, 512, CommandFlags.of(CommandFlag.FAST_ZERO)))
        .hasMessage("not fast");
    assertThat(scene.flushed(1)).isEmpty();
    assertThatThrownBy(() -> scene.handle(0).zero(0, 512, CommandFlags.NONE))
        .hasMessage("not fast");
    assertThat(scene.flushed(1)).containsExactly(0);
  }

  @Test
  void aWriteThatIsDurableAndVisibleByItselfNeedsNoFlush() throws IOException {
    Scene scene = Scene.multiConn(2);
    scene.handle(0).write(ByteBuffer.allocate(512), 0, FUA);
    assertThat(scene.flushed(1)).isEmpty();
    scene.fake.fail(new IOException("broken"), Command.WRITE);
    assertThatThrownBy(() -> scene.handle(0).write(ByteBuffer.allocate(512), 0, FUA))
        .hasMessage("broken");
    assertThat(scene.flushed(1)).containsExactly(1);
  }

  @Test
  void whereEachFlushesForItselfAReaderIsRefreshedByItsOwnFlush() throws IOException {
    Scene scene = Scene.of(Scene.WRITABLE, MultiConnMode.DISABLE, TrackDirty.CONNECTION, 2);
    scene.read(0);
    scene.write(1);
    assertThat(scene.flushed(1)).containsExactly(1);
    assertThat(scene.flushed(0)).containsExactly(0);
    assertThat(scene.flushed(0)).isEmpty();
    Gate inRead = scene.stop(0, Command.READ);
    Running read = scene.startRead(0);
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
}
