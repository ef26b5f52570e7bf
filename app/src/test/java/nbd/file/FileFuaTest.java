package nbd.file;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.posix.Errno;
import nbd.posix.PosixException;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Fua;
import nbd.storage.Handle;
import nbd.testing.Eventually;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Writes with FUA, and what they have to do with flushes: on a disk that fails as it is told. */
@Timeout(60)
final class FileFuaTest {
  private static final int SIZE = 4096;
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);

  private final AtomicInteger syncs = new AtomicInteger();
  private Optional<IOException> failingSync = Optional.empty();
  private Optional<IOException> failingWrite = Optional.empty();
  private boolean writesThrough = true;

  private FileBackend backend() {
    FakeDisk.Sync onSync =
        number -> {
          syncs.incrementAndGet();
          throwOnce(failingSync);
          failingSync = Optional.empty();
        };
    OpenFile disk =
        new FakeDisk(SIZE, false, onSync) {
          @Override
          public boolean writeDurably(ByteBuffer from, long offset) {
            return writesThrough && durably(from, offset);
          }

          private boolean durably(ByteBuffer from, long offset) {
            try {
              throwOnce(failingWrite);
            } catch (IOException failure) {
              failingWrite = Optional.empty();
              throw sneaky(failure);
            }
            return super.writeDurably(from, offset);
          }
        };
    return new FileBackend("disk.img", disk, FileSettings.DEFAULT);
  }

  @SuppressWarnings({"unchecked", "TypeParameterUnusedInFormals"})
  private static <E extends Throwable> RuntimeException sneaky(Throwable failure) throws E {
    throw (E) failure;
  }

  private static void throwOnce(Optional<IOException> failure) throws IOException {
    if (failure.isPresent()) {
      throw failure.get();
    }
  }

  private static Optional<IOException> failure(String call, Errno errno) {
    return Optional.of(new PosixException(call, errno, "disk.img"));
  }

  private static ByteBuffer data() {
    return ByteBuffer.allocateDirect(100);
  }

  private static NbdError errorOf(FailingCall call) {
    try {
      call.run();
      return NbdError.NONE;
    } catch (IOException failure) {
      return NbdException.errorOf(failure);
    }
  }

  /** A call of a handle. */
  @FunctionalInterface
  private interface FailingCall {
    void run() throws IOException;
  }

  @Test
  void aWriteWithFuaIsNoFlushOfTheWholeFile() throws IOException {
    FileBackend backend = backend();
    Handle handle = backend.open("", false);
    assertThat(handle.capabilities().fua()).isEqualTo(Fua.NATIVE);
    handle.write(data(), 0, FUA);
    assertThat(syncs).hasValue(0);
  }

  @Test
  void whereOneRangeCannotBeWrittenThroughTheFileIsFlushed() throws IOException {
    writesThrough = false;
    Handle handle = backend().open("", false);
    ByteBuffer written = ByteBuffer.allocateDirect(100).put(0, (byte) 7);
    handle.write(written, 5, FUA);
    assertThat(syncs).hasValue(1);
    assertThat(written.hasRemaining()).isFalse();
    ByteBuffer read = data();
    handle.read(read, 5);
    assertThat(read.get(0)).isEqualTo((byte) 7);
  }

  @Test
  void zeroesAndTrimsWithFuaAreDurableWhenAnswered() throws IOException {
    Handle handle = backend().open("", false);
    handle.zero(0, 100, FUA);
    assertThat(syncs).hasValue(1);
    handle.trim(0, 100, FUA);
    assertThat(syncs).hasValue(2);
    handle.zero(0, 100, FUA.with(CommandFlag.NO_HOLE));
    assertThat(syncs).hasValue(3);
    handle.zero(0, 100, CommandFlags.NONE);
    assertThat(syncs).hasValue(3);
  }

  @Test
  void afterAFlushThatFailedEveryFuaFails() throws IOException {
    failingSync = failure("fdatasync", Errno.EIO);
    FileBackend backend = backend();
    Handle one = backend.open("", false);
    Handle other = backend.open("", false);
    assertThatThrownBy(one::flush).hasMessageContainingAll("flush failed", "EIO");
    for (FailingCall call :
        List.<FailingCall>of(
            () -> other.write(data(), 0, FUA),
            () -> other.zero(0, 10, FUA),
            () -> other.trim(0, 10, FUA),
            other::flush)) {
      assertThatThrownBy(call::run).hasMessageContaining("may be lost");
    }
    other.write(data(), 0, CommandFlags.NONE);
    assertThat(syncs).hasValue(1);
  }

  @Test
  void aWriteWithFuaThatFailedMakesEveryFlushFail() throws IOException {
    failingWrite = failure("pwritev2", Errno.EIO);
    FileBackend backend = backend();
    Handle one = backend.open("", false);
    Handle other = backend.open("", false);
    assertThat(errorOf(() -> one.write(data(), 0, FUA))).isEqualTo(NbdError.EIO);
    assertThatThrownBy(other::flush).hasMessageContainingAll("FUA failed", "pwritev2: EIO");
    assertThat(errorOf(() -> other.write(data(), 0, FUA))).isEqualTo(NbdError.EIO);
    assertThatThrownBy(backend::close).hasMessageContaining("may be lost");
  }

  @Test
  void aFullFileSystemLosesNothingThatAFlushFinds() throws IOException {
    failingWrite = failure("pwritev2", Errno.ENOSPC);
    Handle handle = backend().open("", false);
    assertThat(errorOf(() -> handle.write(data(), 0, FUA))).isEqualTo(NbdError.ENOSPC);
    assertThat(syncs).as("it was asked whether something is lost").hasValue(1);
    handle.write(data(), 0, FUA);
    handle.flush();
  }

  @Test
  void aFullFileSystemThatLosesWhatWasWrittenIsNotForgotten() throws IOException {
    failingWrite = failure("pwritev2", Errno.ENOSPC);
    failingSync = failure("fdatasync", Errno.ENOSPC);
    Handle handle = backend().open("", false);
    assertThat(errorOf(() -> handle.write(data(), 0, FUA))).isEqualTo(NbdError.ENOSPC);
    assertThat(errorOf(handle::flush)).isEqualTo(NbdError.ENOSPC);
    assertThat(errorOf(() -> handle.write(data(), 0, FUA))).isEqualTo(NbdError.ENOSPC);
    assertThat(syncs).hasValue(1);
  }

  /** One runs, and however many come meanwhile share the next, which starts after all of them. */
  @Test
  void flushesThatComeWhileOneRunsShareTheNext() throws Exception {
    CountDownLatch begun = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    FakeDisk disk =
        new FakeDisk(
            SIZE,
            false,
            number -> {
              if (number == 1) {
                begun.countDown();
                Eventually.await(go);
              }
            });
    FileBackend backend = new FileBackend("disk.img", disk, FileSettings.DEFAULT);
    Handle handle = backend.open("", false);
    List<FutureTask<Void>> flushes = new ArrayList<>();
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < 100; i++) {
      FutureTask<Void> flush =
          new FutureTask<>(
              () -> {
                handle.flush();
                return null;
              });
      flushes.add(flush);
      threads.add(Thread.ofVirtual().start(flush));
      if (i == 0) {
        Eventually.await(begun);
      }
    }
    for (Thread thread : threads) {
      Eventually.isTrue("it waits", () -> thread.getState() == Thread.State.WAITING);
    }
    go.countDown();
    for (FutureTask<Void> flush : flushes) {
      flush.get();
    }
    assertThat(disk.events().stream().filter(FakeDisk.Event.SyncEnds.class::isInstance)).hasSize(2);
  }

  /** More FUAs than there are threads to lend, each of which needs a flush, come to an end. */
  @Test
  void manyFuasWithoutWritingThroughDoNotBlockEachOther() throws Exception {
    writesThrough = false;
    Handle handle = backend().open("", false);
    List<Thread> threads = new ArrayList<>();
    AtomicInteger done = new AtomicInteger();
    for (int i = 0; i < 300; i++) {
      threads.add(
          Thread.ofVirtual()
              .start(
                  () -> {
                    try {
                      handle.write(data(), 0, FUA);
                      done.incrementAndGet();
                    } catch (IOException failure) {
                      throw new AssertionError(failure);
                    }
                  }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(done).hasValue(300);
  }
}
