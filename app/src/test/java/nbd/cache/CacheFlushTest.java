package nbd.cache;

import static nbd.cache.Scene.BLOCK;
import static nbd.cache.Scene.first;
import static nbd.cache.Scene.read;
import static nbd.cache.Scene.write;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.BufferPool;
import nbd.storage.Capability;
import nbd.storage.DirectMemory;
import nbd.storage.Handle;
import nbd.storage.LostWritesException;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.FakeBackend.Call;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.AutoClose;
import org.junit.jupiter.api.Test;

/**
 * Flushes of a cache: what they make durable, what they wait for, and the clients that get a
 * failure.
 */
class CacheFlushTest {
  private static final Call FLUSH = Call.of(Command.FLUSH, 0, 0);

  @AutoClose private final Scene scene = new Scene(CacheMode.WRITEBACK, 16);

  @Test
  void aFlushWritesBackWhatAnybodyWroteAndThenFlushesOnce() throws IOException {
    Handle one = scene.open();
    Handle other = scene.open();
    Handle gone = scene.open();
    write(one, 512, 1);
    write(other, 10 * BLOCK, 2);
    write(gone, 20 * BLOCK, 3);
    gone.close();
    assertThat(scene.storage.calls()).isEmpty();
    assertThat(scene.statistics.dirtyBytes()).isEqualTo(3 * 512);
    one.flush();
    assertThat(scene.storage.calls(Command.WRITE))
        .containsExactlyInAnyOrder(
            Call.of(Command.WRITE, 512, 512),
            Call.of(Command.WRITE, 10 * BLOCK, 512),
            Call.of(Command.WRITE, 20 * BLOCK, 512));
    assertThat(scene.storage.calls()).hasSize(4).endsWith(FLUSH);
    assertThat(scene.statistics.dirtyBytes()).isZero();
    assertThat(scene.statistics.writeBacks()).isEqualTo(3);
  }

  @Test
  void whatIsDirtyIsWrittenBackByWayOfTheHeapWhereDirectMemoryIsUsedUp() throws IOException {
    FakeBackend storage = Scene.numbered(1 << 20);
    ExportCache cache =
        new ExportCache(
            storage,
            "",
            new CacheSettings(CacheMode.WRITEBACK, 4 * BLOCK, BLOCK),
            new Frames(BLOCK, 4),
            new BufferPool(1 << 20, new DirectMemory(0, () -> 0)),
            new CacheStatistics(),
            Storage.PAUSE,
            task -> {});
    Handle handle = new CacheHandle(cache, false, () -> {});
    write(handle, 0, 1);
    handle.flush();
    assertThat(storage.durableAt(0)).isEqualTo(1);
    cache.discard();
  }

  @Test
  void neighboursAreWrittenByOneCall() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 64)) {
      Handle handle = scene.open();
      for (int sector = 30; sector > 4; sector--) {
        write(handle, sector * 512L, sector);
      }
      handle.flush();
      assertThat(scene.storage.calls())
          .containsExactly(Call.of(Command.WRITE, 5 * 512, 26 * 512), FLUSH);
    }
  }

  @Test
  void aGapThatIsCachedIsWrittenToSpareACallAndOneThatIsNotIsLeft() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 64)) {
      Handle handle = scene.open();
      read(handle, 0);
      write(handle, 0, 1);
      write(handle, 2048, 2);
      write(handle, BLOCK, 3);
      write(handle, BLOCK + 2048, 4);
      handle.flush();
      assertThat(scene.storage.calls())
          .containsExactlyInAnyOrder(
              Call.of(Command.READ, 0, BLOCK),
              Call.of(Command.WRITE, 0, 2560),
              Call.of(Command.WRITE, BLOCK, 512),
              Call.of(Command.WRITE, BLOCK + 2048, 512),
              FLUSH);
      assertThat(scene.storage.durableAt(512)).isEqualTo(first(512));
    }
  }

  @Test
  void distantBlocksAreWrittenAtTheSameTime() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 64)) {
      Handle handle = scene.open();
      CountDownLatch all = new CountDownLatch(8);
      for (int i = 0; i < 8; i++) {
        write(handle, 3L * i * BLOCK, i);
      }
      scene.storage.hook(
          call -> {
            all.countDown();
            Eventually.await(all);
          },
          Command.WRITE);
      handle.flush();
      assertThat(all.getCount()).isZero();
    }
  }

  @Test
  void aFlushOfWhatIsDurableAsksNothingOfTheStorage() throws IOException {
    Handle handle = scene.open();
    handle.flush();
    assertThat(scene.storage.calls()).isEmpty();
    write(handle, 0, 1, CommandFlags.of(CommandFlag.FUA));
    handle.flush();
    handle.flush();
    assertThat(scene.storage.count(Command.FLUSH)).isLessThanOrEqualTo(1);
  }

  @Test
  void aWriteDuringTheWriteBackOfItsBlockIsNeitherLostNorHeldUp() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    Gate gate = scene.stop(Command.WRITE);
    Running flush = Running.start(handle::flush);
    gate.awaitReached();
    write(handle, 0, 2);
    assertThat(read(handle, 0)).isEqualTo(2);
    gate.open();
    flush.join();
    assertThat(scene.storage.durableAt(0)).as("what was there when it began").isEqualTo(1);
    assertThat(scene.statistics.dirtyBytes()).isEqualTo(512);
    handle.flush();
    assertThat(scene.storage.durableAt(0)).isEqualTo(2);
  }

  @Test
  void theSecondWriteBackOfABlockDoesNotOvertakeTheFirst() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    Gate gate = scene.stop(Command.WRITE);
    Running first = Running.start(handle::flush);
    gate.awaitReached();
    write(handle, 0, 2);
    Running second = Running.start(handle::flush);
    second.awaitParked();
    assertThat(scene.storage.count(Command.WRITE)).isEqualTo(1);
    gate.open();
    first.join();
    second.join();
    assertThat(scene.storage.durableAt(0)).isEqualTo(2);
  }

  @Test
  void whatIsWrittenDuringAFlushIsNotWaitedFor() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    write(handle, 10 * BLOCK, 1);
    Gate gate = scene.stop(Command.WRITE);
    Running flush = Running.start(handle::flush);
    gate.awaitReached();
    write(handle, 5 * BLOCK, 2);
    gate.open();
    flush.join();
    assertThat(scene.storage.calls(Command.WRITE))
        .hasSize(2)
        .doesNotContain(Call.of(Command.WRITE, 5 * BLOCK, 512));
  }

  @Test
  void flushesThatArriveTogetherShareTheWorkAndNoneIsAnsweredByOneThatBeganBefore()
      throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    Gate gate = scene.stop(Command.FLUSH);
    Running first = Running.start(handle::flush);
    gate.awaitReached();
    write(handle, 0, 2);
    List<Running> others = new ArrayList<>();
    for (int i = 0; i < 10; i++) {
      Running other = Running.start(scene.open()::flush);
      other.awaitParked();
      others.add(other);
    }
    gate.open();
    first.join();
    for (Running other : others) {
      other.join();
    }
    assertThat(scene.storage.count(Command.FLUSH)).isEqualTo(2);
    assertThat(scene.storage.durableAt(0)).isEqualTo(2);
  }

  @Test
  void aFailedWriteBackFailsTheFlushesOfAllAndIsTriedAgain() throws IOException {
    Handle one = scene.open();
    Handle other = scene.open();
    write(one, 0, 1);
    write(one, 9 * BLOCK, 2);
    scene.storage.hook(
        call -> {
          if (call.offset() == 0) {
            throw new NbdException(NbdError.ENOSPC, "full");
          }
        },
        Command.WRITE);
    for (Handle handle : List.of(one, other, one)) {
      assertThatThrownBy(handle::flush)
          .hasMessage("full")
          .isInstanceOfSatisfying(
              NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.ENOSPC));
    }
    assertThat(scene.storage.durableAt(9 * BLOCK)).as("the others were written").isEqualTo(2);
    assertThat(read(other, 0)).isEqualTo(1);
    scene.storage.heal();
    other.flush();
    assertThat(scene.storage.durableAt(0)).isEqualTo(1);
  }

  @Test
  void aFlushThatJoinsAWriteBackWhichFailsFailsOrWritesItself() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    Gate gate = new Gate();
    Set<Call> failed = ConcurrentHashMap.newKeySet();
    scene.storage.hook(
        call -> {
          gate.pass();
          if (failed.add(call)) {
            throw new NbdException(NbdError.EIO, "once");
          }
        },
        Command.WRITE);
    Running first = Running.start(handle::flush);
    gate.awaitReached();
    Running second = Running.start(handle::flush);
    second.awaitParked();
    gate.open();
    assertThatThrownBy(first::join).hasMessage("once");
    second.join();
    assertThat(scene.storage.durableAt(0)).isEqualTo(1);
  }

  @Test
  void afterAFailedFlushOfTheStorageTheNextOneAsksItAgain() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    scene.fail(Command.FLUSH, NbdError.EIO);
    assertThatThrownBy(handle::flush).isInstanceOf(NbdException.class);
    assertThatThrownBy(scene.open()::flush).isInstanceOf(NbdException.class);
    scene.storage.heal();
    handle.flush();
    assertThat(scene.storage.durableAt(0)).isEqualTo(1);
  }

  @Test
  void storageThatBreaksIsWrittenAgainWhatItHadNotFlushed() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    write(handle, 9 * BLOCK, 2);
    scene.fail(Command.FLUSH, NbdError.EIO);
    assertThatThrownBy(handle::flush).isInstanceOf(NbdException.class);
    scene.storage.heal();
    assertThat(scene.storage.valueAt(0)).isEqualTo(1);
    scene.storage.crash();
    assertThat(scene.storage.valueAt(0)).isEqualTo(first(0));
    handle.flush();
    assertThat(scene.storage.durableAt(0)).isEqualTo(1);
    assertThat(scene.storage.durableAt(9 * BLOCK)).isEqualTo(2);
    assertThat(scene.storage.handles()).hasSize(2);
    assertThat(scene.storage.openHandles()).isEqualTo(1);
  }

  @Test
  void storageThatBreaksDuringAFlushIsWrittenAgain() throws IOException {
    for (Command during : List.of(Command.WRITE, Command.FLUSH)) {
      try (Scene scene = new Scene(CacheMode.WRITEBACK, 16)) {
        Handle handle = scene.open();
        write(handle, 0, 1);
        Gate gate = scene.stopAfter(during);
        Running flush = Running.start(handle::flush);
        gate.awaitReached();
        scene.storage.crash();
        gate.open();
        flush.join();
        assertThat(scene.storage.durableAt(0)).as("%s", during).isEqualTo(1);
      }
    }
  }

  @Test
  void whatIsLostForGoodIsToldToEveryConnectionOnce() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 4)) {
      Handle one = scene.open();
      Handle other = scene.open();
      // Many more blocks than there is room for: most of them were written back, and have left.
      for (int block = 0; block < 40; block++) {
        write(one, (long) block * BLOCK, block);
      }
      scene.storage.crash();
      assertThatThrownBy(one::flush).hasMessageContaining("lost");
      assertThatThrownBy(other::flush).hasMessageContaining("lost");
      one.flush();
      other.flush();
      scene.open().flush();
      assertThat(scene.storage.durableAt(39 * BLOCK)).isEqualTo(39);
    }
  }

  /** The storage reports the loss once, to the only handle that the cache has. */
  @Test
  void aLossThatTheStorageReportsIsToldToEveryConnectionOnce() throws IOException {
    Handle one = scene.open();
    Handle other = scene.open();
    write(one, 0, 1);
    scene.storage.after(
        call -> {
          if (scene.storage.count(Command.FLUSH) == 1) {
            throw new LostWritesException("the storage has lost writes", null);
          }
        });
    for (Handle handle : List.of(one, other)) {
      assertThatThrownBy(handle::flush)
          .isInstanceOf(LostWritesException.class)
          .hasMessageContaining("the storage has lost writes");
    }
    one.flush();
    other.flush();
  }

  @Test
  void fuaIsNoSuccessWhenTheStorageBreaksBeforeItsFlush() throws Exception {
    FakeBackend storage = Scene.numbered(1 << 20);
    storage.capabilities(Scene.CAPABILITIES.without(Capability.FUA));
    for (boolean trims : new boolean[] {false, true}) {
      try (Scene scene = new Scene(CacheMode.WRITEBACK, 16, storage)) {
        Handle handle = scene.open();
        int opened = storage.handles().size();
        write(handle, 9 * BLOCK, 1);
        Gate gate = scene.stop(Command.FLUSH);
        Running flush = Running.start(handle::flush);
        gate.awaitReached();
        CommandFlags fua = CommandFlags.of(CommandFlag.FUA);
        Running durable =
            Running.start(
                () -> {
                  if (trims) {
                    handle.trim(0, 512, fua);
                  } else {
                    write(handle, 0, 2, fua);
                  }
                });
        // Its own flush waits for the one that runs.
        Command given = trims ? Command.TRIM : Command.WRITE;
        Eventually.isTrue(
            "it was given to the storage",
            () -> storage.calls(given).stream().anyMatch(call -> call.offset() == 0));
        durable.awaitParked();
        storage.crash();
        Running reader = Running.start(() -> read(handle, 20 * BLOCK));
        reader.awaitParked();
        gate.open();
        reader.join();
        assertThat(storage.handles()).as("opened again").hasSize(opened + 1);
        assertThatThrownBy(durable::join).hasMessageContaining("broke");
        try {
          flush.join();
        } catch (LostWritesException told) {
          assertThat(trims).isTrue();
        }
        assertThat(storage.durableAt(9 * BLOCK)).isEqualTo(1);
      }
    }
  }

  @Test
  void aMistakeInAWriteBackOfManyFailsTheFlush() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    write(handle, 9 * BLOCK, 2);
    scene.storage.hook(
        call -> {
          if (call.offset() == 0) {
            throw new IllegalStateException("the storage has a bug");
          }
        },
        Command.WRITE);
    assertThatThrownBy(handle::flush).hasMessageContaining("the storage has a bug");
    scene.storage.heal();
    handle.flush();
    assertThat(scene.storage.durableAt(0)).isEqualTo(1);
  }

  @Test
  void aLossThatNobodyWasToldOfRefusesOneClientOfAnExportThatGrew() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 4)) {
      Handle one = scene.open();
      for (int block = 0; block < 40; block++) {
        write(one, (long) block * BLOCK, block);
      }
      scene.storage.crash();
      read(one, 100 * BLOCK);
      assertThat(scene.storage.handles()).as("it was opened again").hasSize(2);
      one.close();
      scene.storage.resize(2 << 20);
      assertThatThrownBy(scene::open).hasMessageContaining("lost");
      try (Handle next = scene.open()) {
        assertThat(next.size()).isEqualTo(2 << 20);
        next.flush();
      }
    }
  }

  @Test
  void exportsThatCannotBeOpenedDoNotDisplaceThoseThatWere() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 64)) {
      try (Handle handle = scene.filter.open("kept", false)) {
        read(handle, 0);
      }
      scene.storage.blockSizes(new BlockSizes(8192, 8192, 1 << 20));
      for (int i = 0; i < 40; i++) {
        String name = "refused " + i;
        assertThatThrownBy(() -> scene.filter.open(name, false)).isInstanceOf(NbdException.class);
      }
      scene.storage.blockSizes(BlockSizes.DEFAULT);
      assertThat(scene.filter.size()).isEqualTo(1);
      assertThat(scene.storage.openHandles()).isEqualTo(1);
    }
  }

  @Test
  void aLossOfWhatWasWrittenThroughIsToldAndNotHiddenByTheCache() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITETHROUGH, 16)) {
      Handle one = scene.open();
      Handle other = scene.open();
      write(one, 0, 1);
      one.flush();
      write(one, 0, 2);
      scene.storage.crash();
      assertThatThrownBy(() -> write(one, 512, 3)).isInstanceOf(NbdException.class);
      assertThatThrownBy(other::flush).hasMessageContaining("lost");
      assertThatThrownBy(one::flush).hasMessageContaining("lost");
      one.flush();
      assertThat(read(one, 0)).isEqualTo(1);
    }
  }

  @Test
  void writethroughPassesEveryFlushOn() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITETHROUGH, 16)) {
      Handle handle = scene.open();
      handle.flush();
      handle.flush();
      assertThat(scene.storage.calls()).containsExactly(FLUSH, FLUSH);
    }
  }

  @Test
  void unsafeAnswersFlushesWithoutTheStorageAndWritesBackAtTheEnd() throws IOException {
    Scene scene = new Scene(CacheMode.UNSAFE, 16);
    Handle handle = scene.open();
    write(handle, 0, 1, CommandFlags.of(CommandFlag.FUA));
    scene.fail(Command.FLUSH, NbdError.EIO);
    handle.flush();
    assertThat(scene.storage.calls()).isEmpty();
    handle.close();
    scene.close();
    assertThat(scene.storage.durableAt(0)).isEqualTo(1);
    assertThat(scene.storage.openHandles()).isEqualTo(0);
    assertThat(scene.storage.isClosed()).isTrue();
  }

  @Test
  void whatWaitsForLongIsWrittenBackWithoutAFlush() throws Exception {
    try (Scene scene = Scene.withBackground(CacheMode.UNSAFE, 16)) {
      write(scene.open(), 0, 1);
      Eventually.isTrue("it is written back", () -> scene.storage.valueAt(0) == 1);
    }
  }

  @Test
  void muchThatWaitsIsWrittenBackAtOnce() throws Exception {
    try (Scene scene = Scene.withBackground(CacheMode.WRITEBACK, 16)) {
      Handle handle = scene.open();
      for (int block = 0; block < 6; block++) {
        write(handle, 2L * block * BLOCK, 100 + block);
      }
      Eventually.isTrue("it is written back", () -> scene.statistics.dirtyBytes() == 0);
      assertThat(scene.storage.valueAt(10 * BLOCK)).isEqualTo(105);
      assertThat(scene.storage.count(Command.FLUSH)).isZero();
    }
  }

  @Test
  void aShutdownThatCannotWriteBackSaysHowMuchIsLostOfWhat() throws IOException {
    Scene scene = new Scene(CacheMode.WRITEBACK, 16);
    Handle handle = scene.filter.open("disk", false);
    write(handle, 0, 1);
    write(handle, 3 * BLOCK, 1);
    handle.close();
    scene.fail(Command.WRITE, NbdError.EIO);
    assertThatThrownBy(scene.filter::close)
        .hasMessageContaining("1024 bytes")
        .hasMessageContaining("\"disk\"");
    assertThat(scene.storage.isClosed()).isTrue();
    assertThat(scene.storage.openHandles()).isEqualTo(0);
  }

  /** The shutdown writes the other export back, though the first one's storage never answers. */
  @Test
  void aShutdownDoesNotWaitForStorageThatNeverAnswersAndSaysHowMuchIsLostOfWhat()
      throws IOException {
    FakeBackend storage = Scene.numbered(1 << 20);
    CacheFilter filter =
        new CacheFilter(
            storage,
            new CacheSettings(CacheMode.WRITEBACK, 64L * BLOCK, BLOCK),
            true,
            new CacheStatistics(),
            Duration.ofSeconds(3),
            Storage.PAUSE,
            task -> {});
    Handle silent = filter.open("silent", false);
    write(silent, 0, 1);
    silent.flush();
    write(silent, BLOCK, 1);
    storage.fail(new IOException("broken"), Command.FLUSH);
    assertThatThrownBy(silent::flush).as("stored, but not flushed").isNotNull();
    storage.heal();
    write(silent, 0, 2);
    Handle other = filter.open("other", false);
    write(other, 8 * BLOCK, 3);
    CountDownLatch never = new CountDownLatch(1);
    storage.hook(
        call -> {
          if (call.offset() < 8 * BLOCK) {
            Eventually.await(never);
          }
        },
        Command.WRITE);
    silent.close();
    other.close();
    assertThatThrownBy(filter::close)
        .hasMessageContaining("1024 bytes")
        .hasMessageContaining("\"silent\"")
        .hasMessageContaining("not answered");
    assertThat(storage.durableAt(8 * BLOCK)).isEqualTo(3);
    assertThat(storage.isClosed()).isTrue();
    never.countDown();
  }

  /**
   * A client that opens the storage to see whether the export has changed keeps others from opening
   * it.
   */
  @Test
  void aShutdownDoesNotWaitForAClientWhoseStorageIsNeverOpened() throws IOException {
    FakeBackend storage = Scene.numbered(1 << 20);
    CacheFilter filter =
        new CacheFilter(
            storage,
            new CacheSettings(CacheMode.WRITEBACK, 64L * BLOCK, BLOCK),
            true,
            new CacheStatistics(),
            Duration.ofSeconds(3),
            Storage.PAUSE,
            task -> {});
    try (Handle handle = filter.open("silent", false)) {
      write(handle, 0, 1);
    }
    Gate never = new Gate();
    storage.opening(never::pass);
    Running client = Running.start(() -> filter.open("silent", false));
    never.awaitReached();
    assertThatThrownBy(filter::close)
        .hasMessageContaining("512 bytes")
        .hasMessageContaining("\"silent\"");
    never.open();
    client.join();
  }

  @Test
  void manyExportsThatNobodyUsesAreWrittenBackAndClosed() throws Exception {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 64)) {
      for (int i = 0; i < 40; i++) {
        try (Handle handle = scene.filter.open("export " + i, false)) {
          write(handle, (long) i * BLOCK, 1000 + i);
        }
      }
      Eventually.isTrue("the first ones are closed", () -> scene.storage.openHandles() <= 16);
      assertThat(scene.storage.durableAt(0)).isEqualTo(1000);
      assertThat(scene.storage.durableAt(20 * BLOCK)).isEqualTo(1020);
      try (Handle last = scene.filter.open("export 39", false)) {
        scene.storage.forgetCalls();
        assertThat(read(last, 39 * BLOCK)).isEqualTo(1039);
        assertThat(scene.storage.calls()).as("it is still warm").isEmpty();
      }
    }
  }

  @Test
  void anExportThatCannotBeWrittenBackIsKept() throws Exception {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 64)) {
      scene.fail(Command.WRITE, NbdError.EIO);
      try (Handle handle = scene.filter.open("kept", false)) {
        write(handle, 0, 7);
      }
      for (int i = 0; i < 40; i++) {
        scene.filter.open("export " + i, false).close();
      }
      Eventually.isTrue("the others are closed", () -> scene.storage.openHandles() <= 18);
      try (Handle handle = scene.filter.open("kept", false)) {
        assertThat(read(handle, 0)).isEqualTo(7);
        scene.storage.heal();
        handle.flush();
      }
      assertThat(scene.storage.durableAt(0)).isEqualTo(7);
    }
  }

  @Test
  void anExportThatGrewIsSeenByTheNextClientAfterAllHaveGone() throws IOException {
    Handle one = scene.open();
    write(one, 0, 7);
    scene.storage.resize(2 << 20);
    try (Handle beside = scene.open()) {
      assertThat(beside.size()).isEqualTo(1 << 20);
    }
    one.close();
    try (Handle later = scene.open()) {
      assertThat(later.size()).isEqualTo(2 << 20);
      assertThat(read(later, 0)).isEqualTo(7);
    }
  }

  @Test
  void namesOfTheSameContentShareOneCache() throws IOException {
    FakeBackend storage = Scene.numbered(1 << 20);
    CacheSettings settings = new CacheSettings(CacheMode.WRITEBACK, 16L * BLOCK, BLOCK);
    try (CacheFilter filter = new CacheFilter(storage, settings, false, new CacheStatistics())) {
      write(filter.open("one", false), 0, 7);
      assertThat(read(filter.open("other", false), 0)).isEqualTo(7);
      assertThat(storage.handles()).hasSize(1);
    }
  }

  @Test
  void storageWithoutFlushIsWrittenBackByOne() throws IOException {
    FakeBackend storage = Scene.numbered(1 << 20);
    storage.capabilities(Scene.CAPABILITIES.without(Capability.FLUSH));
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 16, storage)) {
      Handle handle = scene.open();
      write(handle, 0, 7);
      handle.flush();
      assertThat(storage.calls()).containsExactly(Call.of(Command.WRITE, 0, 512));
    }
  }

  @Test
  void aWriterAfterReadersGetsAHandleThatMayWrite() throws IOException {
    Handle reader = scene.filter.open("", true);
    assertThat(read(reader, 0)).isEqualTo(first(0));
    Handle writer = scene.open();
    write(writer, 0, 7);
    writer.flush();
    assertThat(read(reader, 0)).isEqualTo(7);
    assertThat(scene.storage.durableAt(0)).isEqualTo(7);
    assertThat(scene.storage.openHandles()).isEqualTo(1);
  }
}
