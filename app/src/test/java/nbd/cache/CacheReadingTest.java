package nbd.cache;

import static nbd.cache.Scene.BLOCK;
import static nbd.cache.Scene.SECTOR;
import static nbd.cache.Scene.first;
import static nbd.cache.Scene.read;
import static nbd.cache.Scene.write;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.FakeBackend.Call;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.AutoClose;
import org.junit.jupiter.api.Test;

/** Reads through a cache: their data, and the calls that they cause in the storage. */
class CacheReadingTest {

  @AutoClose private final Scene scene = new Scene(CacheMode.WRITEBACK, 16);

  @Test
  void whatWasReadOnceIsReadFromTheCacheByEverybody() throws IOException {
    Handle one = scene.open();
    Handle other = scene.open();
    assertThat(read(one, 512)).isEqualTo(first(512));
    assertThat(read(other, 1024)).isEqualTo(first(1024));
    assertThat(scene.storage.calls()).containsExactly(Call.of(Command.READ, 0, BLOCK));
    assertThat(scene.statistics.hits()).isEqualTo(1);
    assertThat(scene.statistics.misses()).isEqualTo(1);
  }

  @Test
  void anIdleCacheHoldsNoMemory() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 1024)) {
      Handle handle = scene.open();
      assertThat(scene.filter.bytes()).isZero();
      read(handle, 0);
      assertThat(scene.filter.bytes()).isPositive().isLessThanOrEqualTo(1 << 20);
    }
  }

  @Test
  void twoReadersThatMissTheSameBlockShareOneRead() throws IOException {
    Handle handle = scene.open();
    Gate gate = scene.stop(Command.READ);
    Running one = Running.start(() -> assertThat(read(handle, 512)).isEqualTo(first(512)));
    gate.awaitReached();
    Running other = Running.start(() -> assertThat(read(handle, 1024)).isEqualTo(first(1024)));
    other.awaitParked();
    gate.open();
    one.join();
    other.join();
    assertThat(scene.storage.count(Command.READ)).isEqualTo(1);
  }

  @Test
  void aSharedReadThatFailsFailsOnlyWhoNeedsIt() throws IOException {
    Handle handle = scene.open();
    // One bad sector: the block cannot be read as a whole.
    scene.storage.hook(
        call -> {
          if (call.offset() <= 1024 && call.offset() + call.length() > 1024) {
            throw new NbdException(NbdError.EIO, "a bad sector");
          }
        });
    assertThat(read(handle, 512)).isEqualTo(first(512));
    assertThatThrownBy(() -> read(handle, 1024)).hasMessage("a bad sector");
  }

  /** The requests also wait for each other, their turn, a fetch or a write-back. */
  @Test
  void requestsThatMeetStorageWhichDoesNotAnswerWaitForOneAttemptToOpenIt() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    scene.storage.crash();
    AtomicInteger attempts = new AtomicInteger();
    Gate gate = new Gate();
    scene.storage.opening(
        () -> {
          attempts.incrementAndGet();
          gate.pass();
          throw new IOException("it does not answer");
        });
    CommandFlags fua = CommandFlags.of(CommandFlag.FUA);
    List<Running.Call> calls =
        List.of(
            () -> read(handle, BLOCK),
            () -> read(handle, BLOCK),
            () -> read(handle, BLOCK),
            () -> read(handle, 9 * BLOCK),
            () -> write(handle, 5 * BLOCK, 1, fua),
            () -> write(handle, 5 * BLOCK, 2, fua),
            () -> handle.write(ByteBuffer.allocate(8), 7 * BLOCK, CommandFlags.NONE),
            () -> handle.zero(BLOCK, 2 * BLOCK, CommandFlags.NONE),
            () -> handle.extents(0, BLOCK, 1),
            handle::flush,
            handle::flush,
            handle::flush);
    List<Running> requests = new ArrayList<>();
    for (Running.Call call : calls) {
      requests.add(Running.start(call));
      gate.awaitReached();
      requests.getLast().awaitParked();
    }
    gate.open();
    for (Running request : requests) {
      assertThatThrownBy(request::join).hasMessageContaining("does not answer");
    }
    assertThat(attempts).hasValue(1);
    scene.storage.opening(() -> {});
    // A client that comes has it tried at once.
    assertThat(read(scene.open(), BLOCK)).isEqualTo(first(BLOCK));
    handle.flush();
    assertThat(scene.storage.durableAt(0)).isEqualTo(1);
  }

  @Test
  void clientsThatComeWhileStorageDoesNotAnswerWaitForOneAttemptToOpenIt() throws IOException {
    AtomicInteger attempts = new AtomicInteger();
    Gate gate = new Gate();
    scene.storage.opening(
        () -> {
          attempts.incrementAndGet();
          gate.pass();
          throw new OptionException(OptionReplyType.ERR_SHUTDOWN, "it does not answer");
        });
    List<Running> clients = new ArrayList<>();
    for (int i = 0; i < 4; i++) {
      clients.add(Running.start(scene::open));
      gate.awaitReached();
      clients.getLast().awaitParked();
    }
    gate.open();
    for (Running client : clients) {
      assertThatThrownBy(client::join)
          .isInstanceOf(OptionException.class)
          .hasMessage("it does not answer");
    }
    assertThat(attempts).hasValue(1);
    scene.storage.opening(() -> {});
    assertThat(read(scene.open(), 0)).isEqualTo(first(0));
  }

  @Test
  void manyBlocksThatAreMissingAreReadByOneCall() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 64)) {
      Handle handle = scene.open();
      ByteBuffer into = ByteBuffer.allocate(8 * BLOCK);
      handle.read(into, 2 * BLOCK + 512);
      assertThat(into.getLong(0)).isEqualTo(first(2 * BLOCK + 512));
      assertThat(into.getLong(7 * BLOCK)).isEqualTo(first(9 * BLOCK + 512));
      assertThat(scene.storage.calls())
          .containsExactly(Call.of(Command.READ, 2 * BLOCK, 9 * BLOCK));
    }
  }

  @Test
  void aBlockThatWasWrittenInPartIsReadWithoutThatPart() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 7);
    write(handle, 7 * 512, 8);
    assertThat(read(handle, 0)).isEqualTo(7);
    assertThat(scene.storage.calls()).as("what was written needs no read").isEmpty();
    assertThat(read(handle, 512)).isEqualTo(first(512));
    assertThat(scene.storage.calls()).containsExactly(Call.of(Command.READ, 512, 6 * 512));
    assertThat(read(handle, 7 * 512)).isEqualTo(8);
  }

  @Test
  void aReadDoesNotReplaceWhatIsWrittenWhileItIsUnderWay() throws IOException {
    Handle handle = scene.open();
    Gate gate = scene.stopAfter(Command.READ);
    Running reader = Running.start(() -> assertThat(read(handle, 0)).isEqualTo(first(0)));
    gate.awaitReached();
    write(handle, 512, 7);
    gate.open();
    reader.join();
    assertThat(read(handle, 512)).isEqualTo(7);
    assertThat(read(handle, 1024)).isEqualTo(first(1024));
    assertThat(scene.storage.count(Command.READ)).isEqualTo(1);
  }

  @Test
  void aReadThatWasUnderWayOverAWriteOfZeroesIsNotKept() throws IOException {
    Handle handle = scene.open();
    Gate gate = scene.stopAfter(Command.READ);
    Running reader = Running.start(() -> read(handle, 0));
    gate.awaitReached();
    handle.zero(0, 1024, CommandFlags.NONE);
    gate.open();
    reader.join();
    assertThat(read(handle, 0)).isZero();
    assertThat(read(handle, 512)).isZero();
    assertThat(read(handle, 1024)).isEqualTo(first(1024));
  }

  /** Until the write is answered either content is right, but not the older after the newer. */
  @Test
  void whoHasSeenAWriteDoesNotSeeWhatWasThereBefore() throws IOException {
    Handle handle = scene.open();
    AtomicBoolean isBad = new AtomicBoolean(true);
    Gate past = new Gate();
    scene.storage.hook(
        call -> {
          if (call.length() == SECTOR) {
            past.pass();
          } else if (isBad.getAndSet(false)) {
            throw new NbdException(NbdError.EIO, "so that the sector is read past the cache");
          }
        },
        Command.READ);
    Gate fetch = new Gate();
    scene.storage.after(
        call -> {
          if (call.length() == BLOCK) {
            fetch.pass();
          }
        },
        Command.READ);
    Gate written = scene.stopAfter(Command.WRITE);
    Running reader = Running.start(() -> assertThat(read(handle, 0)).isEqualTo(7));
    past.awaitReached();
    Running fetcher = Running.start(() -> read(handle, 0));
    fetch.awaitReached();
    Running writer = Running.start(() -> write(handle, 0, 7, CommandFlags.of(CommandFlag.FUA)));
    written.awaitReached();
    past.open();
    reader.join();
    fetch.open();
    fetcher.join();
    assertThat(read(handle, 0)).isEqualTo(7);
    written.open();
    writer.join();
  }

  @Test
  void theFastWayServesWhatIsCachedAndNothingElse() throws IOException {
    Handle handle = scene.open();
    ByteBuffer into = ByteBuffer.allocate(2 * BLOCK);
    read(handle, 0);
    assertThat(handle.tryNow(Operation.read(into, 0))).isFalse();
    assertThat(into.position()).isZero();
    read(handle, BLOCK);
    assertThat(handle.tryNow(Operation.read(into, 0))).isTrue();
    assertThat(into.position()).isEqualTo(2 * BLOCK);
    assertThat(into.getLong(BLOCK)).isEqualTo(first(BLOCK));
  }

  @Test
  void whatIsBeyondTheLastWholeSectorIsCachedToo() throws IOException {
    FakeBackend storage = Scene.numbered(2 * BLOCK + 700);
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 16, storage)) {
      Handle handle = scene.open();
      handle.write(ByteBuffer.wrap(new byte[] {1, 2, 3}), 2 * BLOCK + 697, CommandFlags.NONE);
      handle.write(ByteBuffer.wrap(new byte[] {9}), 2 * BLOCK + 511, CommandFlags.NONE);
      ByteBuffer into = ByteBuffer.allocate(700);
      handle.read(into, 2 * BLOCK);
      assertThat(into.array()).endsWith(1, 2, 3);
      assertThat(into.get(511)).isEqualTo((byte) 9);
      handle.flush();
      assertThat(storage.content()).endsWith(1, 2, 3);
      assertThat(storage.valueAt(2 * BLOCK)).isEqualTo(first(2 * BLOCK));
    }
  }

  @Test
  void aReadIsServedWhileNoMemoryCanBeHad() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 4)) {
      Handle handle = scene.open();
      scene.fail(Command.WRITE, NbdError.ENOSPC);
      for (int block = 0; block < 3; block++) {
        write(handle, (long) block * BLOCK, block);
      }
      // One frame is left for reads; take it and hold it.
      Gate gate = scene.stopAfter(Command.READ);
      Running holder = Running.start(() -> read(handle, 10 * BLOCK));
      gate.awaitReached();
      assertThat(read(handle, 11 * BLOCK)).isEqualTo(first(11 * BLOCK));
      ByteBuffer over = ByteBuffer.allocate(1024);
      handle.read(over, 2 * BLOCK);
      assertThat(over.getLong(0)).isEqualTo(2);
      assertThat(over.getLong(512)).isEqualTo(first(2 * BLOCK + 512));
      gate.open();
      holder.join();
    }
  }

  @Test
  void aReadThatFailsOverAWriteOfItsFirstBlockIsGivenThatBlockOnce() throws IOException {
    Handle handle = scene.open();
    Gate gate = new Gate();
    scene.storage.hook(
        call -> {
          gate.pass();
          if (call.length() > BLOCK) {
            throw new NbdException(NbdError.EIO, "too much at once");
          }
        },
        Command.READ);
    ByteBuffer into = ByteBuffer.allocate(2 * BLOCK);
    Running reader = Running.start(() -> handle.read(into, 0));
    gate.awaitReached();
    handle.write(ByteBuffer.allocate(BLOCK).putLong(0, 7), 0, CommandFlags.NONE);
    gate.open();
    reader.join();
    assertThat(into.getLong(0)).isEqualTo(7);
    assertThat(into.getLong(BLOCK)).isEqualTo(first(BLOCK));
  }

  @Test
  void theCommandCacheForMoreThanThereIsRoomForBringsThatMuch() throws IOException {
    Handle handle = scene.open();
    handle.cache(0, 1 << 20);
    assertThat(scene.storage.calls(Command.READ).stream().mapToLong(Call::length).sum())
        .isEqualTo(16 * BLOCK);
    assertThat(handle.tryNow(Operation.read(ByteBuffer.allocate(BLOCK), 0))).isTrue();
  }

  @Test
  void aSequentialReaderFindsTheNextBlocksInTheCache() throws Exception {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 256)) {
      Handle handle = scene.open();
      for (int at = 0; at < 4 * BLOCK; at += 512) {
        read(handle, at);
      }
      ByteBuffer into = ByteBuffer.allocate(512);
      Eventually.isTrue(
          "the next block was read ahead",
          () -> {
            try {
              return handle.tryNow(Operation.read(into.clear(), 5 * BLOCK));
            } catch (IOException e) {
              throw new AssertionError(e);
            }
          });
    }
  }

  @Test
  void aRandomReaderCausesNoReadsButItsOwn() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 256)) {
      Handle handle = scene.open();
      for (int block : new int[] {9, 3, 100, 41, 77, 40, 2, 200, 13, 60}) {
        read(handle, (long) block * BLOCK);
      }
      // A read-ahead would have been begun before the last read ended.
      assertThat(scene.storage.calls()).hasSize(10).allMatch(call -> call.length() == BLOCK);
    }
  }

  @Test
  void theCommandCacheBringsBlocksWithoutSendingThem() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 64)) {
      Handle handle = scene.open();
      handle.cache(BLOCK + 1, 2 * BLOCK);
      assertThat(scene.storage.calls()).containsExactly(Call.of(Command.READ, BLOCK, 3 * BLOCK));
      assertThat(handle.tryNow(Operation.read(ByteBuffer.allocate(3 * BLOCK), BLOCK))).isTrue();
    }
  }

  @Test
  void storageWithLargeBlocksIsReadAndWrittenInThem() throws IOException {
    FakeBackend storage = Scene.numbered(1 << 20);
    storage.blockSizes(new nbd.protocol.BlockSizes(2048, 4096, 1 << 20));
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 16, storage)) {
      Handle handle = scene.open();
      handle.write(ByteBuffer.allocate(2048).putLong(0, 7), 2048, CommandFlags.NONE);
      handle.read(ByteBuffer.allocate(4096), 0);
      handle.flush();
      assertThat(storage.calls())
          .containsExactly(
              Call.of(Command.READ, 0, 2048),
              Call.of(Command.WRITE, 2048, 2048),
              Call.of(Command.FLUSH, 0, 0));
    }
  }

  @Test
  void storageWithBlocksThatAreTooLargeIsRefusedWithAnExplanation() {
    FakeBackend storage = Scene.zeroed(1 << 20);
    storage.blockSizes(new nbd.protocol.BlockSizes(8192, 8192, 1 << 20));
    Scene scene = new Scene(CacheMode.WRITEBACK, 16, storage);
    assertThatThrownBy(scene::open).hasMessageContaining("--cache-block-size");
    assertThat(storage.openHandles()).isEqualTo(0);
  }
}
