package nbd.file;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.storage.Handle;
import nbd.testing.Eventually;
import nbd.testing.FakeFileChannel;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A file's flush that fails: the kernel says it once, this server for ever. */
@Timeout(60)
final class FileFlushTest {
  private final AtomicInteger calls = new AtomicInteger();

  private static FileBackend backend(FakeFileChannel.Force force) {
    return new FileBackend(
        "disk.img", new ChannelFile(new FakeFileChannel(force)), FileSettings.DEFAULT);
  }

  @Test
  void aFlushThatFailedOnceFailsForEveryConnectionForEver() throws IOException {
    FileBackend backend =
        backend(
            () -> {
              if (calls.incrementAndGet() == 2) {
                throw new IOException("Input/output error");
              }
            });
    Handle one = backend.open("", false);
    Handle other = backend.open("", false);
    one.flush();
    for (Handle handle : new Handle[] {one, one, other, backend.open("", false)}) {
      assertThatThrownBy(handle::flush)
          .isInstanceOf(IOException.class)
          .hasMessageContainingAll("disk.img", "flush failed", "Input/output error");
    }
    assertThatThrownBy(backend::close).hasMessageContaining("flush failed");
    assertThat(calls).hasValue(2);
  }

  /** The kernel may have reported the loss to the flush that ended so. */
  @Test
  void aFlushThatEndedInAnErrorIsALossForEver() throws IOException {
    FileBackend backend =
        backend(
            () -> {
              if (calls.incrementAndGet() == 1) {
                throw new OutOfMemoryError("of the test");
              }
            });
    Handle handle = backend.open("", false);
    for (int i = 0; i < 2; i++) {
      assertThatThrownBy(handle::flush)
          .isInstanceOf(IOException.class)
          .hasMessageContainingAll("disk.img", "flush failed", "of the test");
    }
    assertThat(calls).hasValue(1);
  }

  /** Of two at once only one would be told by the kernel. */
  @Test
  void aFlushThatArrivesDuringOneThatFailsFailsToo() throws Exception {
    CountDownLatch begun = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    FileBackend backend =
        backend(
            () -> {
              if (calls.incrementAndGet() == 1) {
                begun.countDown();
                Eventually.await(go);
                throw new IOException("Input/output error");
              }
            });
    FutureTask<Void> first = flushing(backend);
    FutureTask<Void> second = flushing(backend);
    Thread.ofVirtual().start(first);
    Eventually.await(begun);
    Thread later = Thread.ofVirtual().start(second);
    Eventually.isTrue("it waits", () -> later.getState() == Thread.State.WAITING);
    go.countDown();
    for (FutureTask<Void> flush : List.of(first, second)) {
      assertThatThrownBy(flush::get)
          .isInstanceOf(ExecutionException.class)
          .hasMessageContaining("flush failed");
    }
  }

  private static FutureTask<Void> flushing(FileBackend backend) throws IOException {
    Handle handle = backend.open("", false);
    return new FutureTask<>(
        () -> {
          handle.flush();
          return null;
        });
  }

  @Test
  void theEndFlushes() throws IOException {
    backend(calls::incrementAndGet).close();
    assertThat(calls).hasValue(1);
  }
}
