package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.Operation;
import nbd.testing.FarBackend;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** Calls that are begun count like the others: when they end, and before that is told. */
class BegunCallsTest {
  private final FakeBackend fake = new FakeBackend(FakeBackend.WRITABLE);
  private final FarBackend far = new FarBackend(fake, 1);
  private final MultiConnFilter filter = new MultiConnFilter(far, MultiConnSettings.DEFAULT);
  private final AtomicInteger ended = new AtomicInteger();

  private void beginWrite(Handle handle) throws IOException {
    ByteBuffer data = ByteBuffer.allocate(512);
    assertThat(
            handle.begin(
                Operation.write(data, 0, CommandFlags.NONE), failure -> ended.incrementAndGet()))
        .isTrue();
    handle.push();
  }

  @Test
  void aWriteThatWasBegunIsCoveredByAFlushAfterItsEnd() throws IOException {
    try (Handle writer = filter.open("", false);
        Handle flusher = filter.open("", false)) {
      far.hold();
      beginWrite(writer);
      flusher.flush();
      assertThat(fake.takeFlushed()).as("nothing has ended").isEmpty();

      far.release();
      assertThat(ended).hasValue(1);
      flusher.flush();
      assertThat(fake.takeFlushed()).containsExactly(0);
    }
  }

  @Test
  void aFlushAtTheVeryEndCoversIt() throws IOException {
    try (Handle writer = filter.open("", false);
        Handle flusher = filter.open("", false)) {
      AtomicInteger flushes = new AtomicInteger();
      far.hold();
      assertThat(
              writer.begin(
                  Operation.write(ByteBuffer.allocate(512), 0, CommandFlags.NONE),
                  failure -> {
                    // The client is told now, and flushes at once on another connection.
                    try {
                      flusher.flush();
                      flushes.set(fake.takeFlushed().size());
                    } catch (IOException unexpected) {
                      throw new AssertionError(unexpected);
                    }
                  }))
          .isTrue();
      writer.push();
      far.release();
      assertThat(flushes).hasValue(1);
    }
  }

  @Test
  void aReadThatWasBegunIsWaitedForBeforeItsHandleIsRefreshed() throws IOException {
    try (Handle reader = filter.open("", false);
        Handle writer = filter.open("", false)) {
      far.hold();
      assertThat(
              reader.begin(
                  Operation.read(ByteBuffer.allocate(512), 0), failure -> ended.incrementAndGet()))
          .isTrue();
      reader.push();
      Calls.zero(writer);
      Running flush = Running.start(writer::flush);
      flush.awaitParked();
      assertThat(fake.takeFlushed()).containsExactly(1);

      far.release();
      flush.join();
      assertThat(fake.takeFlushed()).containsExactly(0);
    }
  }

  @Test
  void aReadThatIsNotBegunIsNotWaitedFor() throws IOException {
    MultiConnFilter near = new MultiConnFilter(fake, MultiConnSettings.DEFAULT);
    try (Handle reader = near.open("", false);
        Handle writer = near.open("", false)) {
      assertThat(reader.begin(Operation.read(ByteBuffer.allocate(512), 0), failure -> {}))
          .isFalse();
      Calls.zero(writer);
      writer.flush();
    }
  }

  @Test
  void aWriteThatWasBegunAndLostConcernsNobodyElse() throws IOException {
    try (Handle writer = filter.open("", false);
        Handle flusher = filter.open("", false)) {
      far.fail(new LostException(NbdError.EIO, "the cable is cut"));
      far.hold();
      beginWrite(writer);
      far.release();
      fake.handles.getFirst().onFlush =
          () -> {
            throw new LostException(NbdError.ESHUTDOWN, "the cable is cut");
          };
      flusher.flush();
      assertThat(fake.takeFlushed()).isEmpty();
    }
  }

  @Test
  void aWriteThatWasBegunAndFailedCounts() throws IOException {
    try (Handle writer = filter.open("", false);
        Handle flusher = filter.open("", false)) {
      far.fail(new IOException("disk"));
      far.hold();
      beginWrite(writer);
      far.release();
      fake.handles.getFirst().onFlush =
          () -> {
            throw new IOException("disk");
          };
      assertThatThrownBy(flusher::flush).hasMessageContaining("disk");
      fake.handles.getFirst().onFlush = () -> {};
    }
  }
}
