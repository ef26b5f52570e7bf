package nbd.file;

import static nbd.file.Disks.FUA;
import static nbd.file.Disks.NO_HOLE;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.CountDownLatch;
import nbd.posix.Errno;
import nbd.posix.PosixException;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.testing.Eventually;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Flushes and writes with FUA of a file: the kernel reports a loss once, this server for ever. */
@Timeout(300)
final class FileFlushTest {
  private final Queue<FakeDisk.Sync> syncs = new ArrayDeque<>();
  private final Queue<PosixException> failingWrites = new ArrayDeque<>();
  private boolean writesThrough = true;

  private final FakeDisk disk =
      new FakeDisk(4096, this::sync) {
        @Override
        public boolean writeDurably(ByteBuffer from, long offset) throws IOException {
          PosixException failure = failingWrites.poll();
          if (failure != null) {
            throw failure;
          }
          return writesThrough && super.writeDurably(from, offset);
        }
      };
  private final FileBackend backend = disk.served("disk.img");
  private final Handle one = open();
  private final Handle other = open();

  private Handle open() {
    try {
      return backend.open("", false);
    } catch (IOException impossible) {
      throw new AssertionError(impossible);
    }
  }

  private void sync(int number) throws IOException {
    FakeDisk.Sync next = syncs.poll();
    if (next != null) {
      next.run(number);
    }
  }

  private void failNextSync(Errno errno) {
    syncs.add(
        number -> {
          throw new PosixException("fdatasync", errno, "disk.img");
        });
  }

  private void failNextWrite(Errno errno) {
    failingWrites.add(new PosixException("pwrite", errno, "disk.img"));
  }

  private static ByteBuffer data() {
    return ByteBuffer.allocateDirect(100);
  }

  private static NbdError errorOf(Running.Call call) {
    try {
      call.run();
      return NbdError.NONE;
    } catch (IOException failure) {
      return NbdException.errorOf(failure);
    }
  }

  private static void join(List<Running> all) throws IOException {
    for (Running each : all) {
      each.join();
    }
  }

  @Test
  void aWriteWithFuaIsNoFlushOfTheWholeFile() throws IOException {
    assertThat(one.capabilities().has(Capability.FUA)).isTrue();
    one.write(data(), 0, FUA);
    assertThat(disk.syncs()).isZero();
  }

  @Test
  void whereOneRangeCannotBeWrittenThroughTheFileIsFlushed() throws IOException {
    writesThrough = false;
    ByteBuffer written = data().put(0, (byte) 7);
    one.write(written, 5, FUA);
    assertThat(disk.syncs()).isEqualTo(1);
    assertThat(written.hasRemaining()).isFalse();
    assertThat(Disks.read(one, 5, 1)).containsExactly(7);
  }

  @Test
  void zeroesAndTrimsWithFuaAreDurableWhenAnswered() throws IOException {
    one.zero(0, 100, FUA);
    assertThat(disk.syncs()).isEqualTo(1);
    one.trim(0, 100, FUA);
    assertThat(disk.syncs()).isEqualTo(2);
    one.zero(0, 100, NO_HOLE.with(CommandFlag.FUA));
    assertThat(disk.syncs()).isEqualTo(3);
    one.zero(0, 100, CommandFlags.NONE);
    assertThat(disk.syncs()).isEqualTo(3);
  }

  @Test
  void aFlushThatFailedOnceFailsForEveryConnectionForEver() throws IOException {
    one.flush();
    failNextSync(Errno.EIO);
    for (Handle handle : List.of(one, one, other, open())) {
      assertThatThrownBy(handle::flush)
          .isInstanceOf(IOException.class)
          .hasMessageContainingAll("disk.img", "flush failed", "EIO");
    }
    assertThatThrownBy(backend::close).hasMessageContaining("flush failed");
    assertThat(disk.syncs()).isEqualTo(2);
  }

  @Test
  void afterAFlushThatFailedEveryFuaFails() throws IOException {
    failNextSync(Errno.EIO);
    assertThatThrownBy(one::flush).hasMessageContainingAll("flush failed", "EIO");
    for (Running.Call call :
        List.<Running.Call>of(
            () -> other.write(data(), 0, FUA),
            () -> other.zero(0, 10, FUA),
            () -> other.trim(0, 10, FUA))) {
      assertThatThrownBy(call::run).hasMessageContaining("may be lost");
    }
    other.write(data(), 0, CommandFlags.NONE);
    assertThat(disk.syncs()).isEqualTo(1);
  }

  /** The kernel may have reported a loss to the flush that ended in an Error. */
  @Test
  void aFlushThatEndedInAnErrorIsALossForEver() {
    syncs.add(
        number -> {
          throw new OutOfMemoryError("of the test");
        });
    for (int i = 0; i < 2; i++) {
      assertThatThrownBy(one::flush)
          .isInstanceOf(IOException.class)
          .hasMessageContainingAll("disk.img", "flush failed", "of the test");
    }
    assertThat(disk.syncs()).isEqualTo(1);
  }

  /** The kernel would report the loss to only one of two flushes at once. */
  @Test
  void aFlushThatArrivesDuringOneThatFailsFailsToo() {
    CountDownLatch begun = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    syncs.add(
        number -> {
          begun.countDown();
          Eventually.await(go);
          throw new PosixException("fdatasync", Errno.EIO, "disk.img");
        });
    Running first = Running.start(one::flush);
    Eventually.await(begun);
    Running second = Running.start(other::flush);
    second.awaitParked();
    go.countDown();
    assertThatThrownBy(first::join).hasMessageContaining("flush failed");
    assertThatThrownBy(second::join).hasMessageContaining("flush failed");
  }

  /** One runs; those that come meanwhile share the next, which begins after all of them. */
  @Test
  void flushesThatComeWhileOneRunsShareTheNext() throws IOException {
    CountDownLatch begun = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    syncs.add(
        number -> {
          begun.countDown();
          Eventually.await(go);
        });
    List<Running> flushes = new ArrayList<>(List.of(Running.start(one::flush)));
    Eventually.await(begun);
    for (int i = 0; i < 100; i++) {
      flushes.add(Running.start(one::flush));
    }
    Running.awaitParked(flushes);
    go.countDown();
    join(flushes);
    assertThat(disk.syncs()).isEqualTo(2);
  }

  @Test
  void aWriteWithFuaThatFailedMakesEveryFlushFail() {
    failNextWrite(Errno.EIO);
    assertThat(errorOf(() -> one.write(data(), 0, FUA))).isEqualTo(NbdError.EIO);
    assertThatThrownBy(other::flush).hasMessageContainingAll("FUA failed", "pwrite: EIO");
    assertThat(errorOf(() -> other.write(data(), 0, FUA))).isEqualTo(NbdError.EIO);
    assertThatThrownBy(backend::close).hasMessageContaining("may be lost");
  }

  @Test
  void aFullFileSystemLosesNothingThatAFlushFinds() throws IOException {
    failNextWrite(Errno.ENOSPC);
    assertThat(errorOf(() -> one.write(data(), 0, FUA))).isEqualTo(NbdError.ENOSPC);
    assertThat(disk.syncs()).as("it was asked whether something is lost").isEqualTo(1);
    one.write(data(), 0, FUA);
    one.flush();
  }

  @Test
  void aFullFileSystemThatLosesWhatWasWrittenIsNotForgotten() {
    failNextWrite(Errno.ENOSPC);
    failNextSync(Errno.ENOSPC);
    assertThat(errorOf(() -> one.write(data(), 0, FUA))).isEqualTo(NbdError.ENOSPC);
    assertThat(errorOf(one::flush)).isEqualTo(NbdError.ENOSPC);
    assertThat(errorOf(() -> one.write(data(), 0, FUA))).isEqualTo(NbdError.ENOSPC);
    assertThat(disk.syncs()).isEqualTo(1);
  }

  /** More writes than threads, each of which needs a flush, come to an end. */
  @Test
  void manyFuasWithoutWritingThroughDoNotBlockEachOther() throws IOException {
    writesThrough = false;
    List<Running> writes = new ArrayList<>();
    for (int i = 0; i < 300; i++) {
      writes.add(Running.start(() -> one.write(data(), 0, FUA)));
    }
    join(writes);
  }

  @Test
  void theEndFlushes() throws IOException {
    backend.close();
    assertThat(disk.syncs()).isEqualTo(1);
  }
}
