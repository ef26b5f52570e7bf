package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.storage.Completion;
import nbd.storage.LostException;
import nbd.storage.Operation;
import nbd.testing.FarBackend;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** Begun operations are marked like the others: at their end, and before the client's reply. */
class BegunCallsTest {
  private FarBackend far;
  private final Scene scene;
  private final AtomicInteger ended = new AtomicInteger();

  BegunCallsTest() throws IOException {
    scene = Scene.over(storage -> far = new FarBackend(storage, 1), 2);
    far.hold();
  }

  private void begin(Operation operation, Completion end) throws IOException {
    assertThat(scene.handle(0).begin(operation, end)).isTrue();
    scene.handle(0).push();
  }

  private void beginWrite(Completion end) throws IOException {
    begin(Operation.write(ByteBuffer.allocate(512), 0, CommandFlags.NONE), end);
  }

  @Test
  void aWriteThatWasBegunIsCoveredByAFlushAfterItsEnd() throws IOException {
    beginWrite(failure -> ended.incrementAndGet());
    assertThat(scene.flushed(1)).as("nothing has ended").isEmpty();

    far.release();
    assertThat(ended).hasValue(1);
    assertThat(scene.flushed(1)).containsExactly(0);
  }

  @Test
  void aFlushAtTheVeryEndCoversIt() throws IOException {
    beginWrite(
        failure -> {
          // The client has its reply now, and flushes at once on another connection.
          try {
            ended.set(scene.flushed(1).size());
          } catch (IOException unexpected) {
            throw new AssertionError(unexpected);
          }
        });
    far.release();
    assertThat(ended).hasValue(1);
  }

  @Test
  void aReadThatWasBegunIsWaitedForBeforeItsHandleIsRefreshed() throws IOException {
    begin(Operation.read(ByteBuffer.allocate(512), 0), failure -> ended.incrementAndGet());
    scene.handle(1).zero(0, 512, CommandFlags.NONE);
    Running flush = scene.startFlush(1);
    flush.awaitParked();
    assertThat(scene.takeFlushed()).containsExactly(1);

    far.release();
    flush.join();
    assertThat(scene.takeFlushed()).containsExactly(0);
  }

  @Test
  void aReadThatIsNotBegunIsNotWaitedFor() throws IOException {
    Scene near = Scene.emulating(2);
    assertThat(near.handle(0).begin(Operation.read(ByteBuffer.allocate(512), 0), failure -> {}))
        .isFalse();
    near.write(1);
    near.flush(1);
  }

  @Test
  void aWriteThatWasBegunAndLostConcernsNobodyElse() throws IOException {
    far.fail(new LostException(NbdError.EIO, "the cable is cut"));
    beginWrite(failure -> ended.incrementAndGet());
    far.release();
    scene.cut(0);
    assertThat(scene.flushed(1)).isEmpty();
  }

  @Test
  void aWriteThatWasBegunAndFailedIsMarked() throws IOException {
    far.fail(new IOException("disk"));
    beginWrite(failure -> ended.incrementAndGet());
    far.release();
    scene.failFlushes(0, new IOException("disk"));
    assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("disk");
  }
}
