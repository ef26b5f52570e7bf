package nbd.cache;

import static nbd.cache.Scene.BLOCK;
import static nbd.cache.Scene.SECTOR;
import static nbd.cache.Scene.first;
import static nbd.cache.Scene.read;
import static nbd.cache.Scene.sector;
import static nbd.cache.Scene.write;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capability;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.testing.FakeBackend;
import nbd.testing.FakeBackend.Call;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.AutoClose;
import org.junit.jupiter.api.Test;

/** Writes, trims and zeroes through a cache, and the calls that reach the storage. */
class CacheWritingTest {
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);

  @AutoClose private final Scene scene = new Scene(CacheMode.WRITEBACK, 16);

  @Test
  void whatOneConnectionWritesAnotherReadsAtOnce() throws IOException {
    for (CacheMode mode : CacheMode.values()) {
      try (Scene scene = new Scene(mode, 16)) {
        write(scene.open(), 512, 7);
        assertThat(read(scene.open(), 512)).as("%s", mode).isEqualTo(7);
      }
    }
  }

  @Test
  void aWriteOfAPartOfASectorKeepsTheRestOfIt() throws IOException {
    for (CacheMode mode : CacheMode.values()) {
      try (Scene scene = new Scene(mode, 16)) {
        Handle handle = scene.open();
        handle.write(ByteBuffer.wrap(new byte[600]), 510, CommandFlags.NONE);
        assertThat(read(handle, 0)).isEqualTo(first(0));
        assertThat(read(handle, 512)).isZero();
        handle.write(ByteBuffer.wrap(new byte[] {5}), 2048 + 511, CommandFlags.NONE);
        ByteBuffer into = ByteBuffer.allocate(512);
        handle.read(into, 2048);
        assertThat(into.getLong(0)).isEqualTo(first(2048));
        assertThat(into.get(511)).isEqualTo((byte) 5);
        scene.filter.close();
        assertThat(scene.storage.valueAt(2048)).as("%s", mode).isEqualTo(first(2048));
        assertThat(scene.storage.content()[2048 + 511]).isEqualTo((byte) 5);
        assertThat(scene.storage.valueAt(512)).isZero();
      }
    }
  }

  @Test
  void aWriteWaitsForTheStorageInWritethroughOnly() throws IOException {
    for (CacheMode mode : CacheMode.values()) {
      try (Scene scene = new Scene(mode, 16)) {
        Handle handle = scene.open();
        assertThat(handle.tryNow(Operation.write(sector(7), 512, CommandFlags.NONE)))
            .isEqualTo(mode != CacheMode.WRITETHROUGH);
        write(handle, 0, 8);
        assertThat(scene.storage.count(Command.WRITE))
            .as("%s", mode)
            .isEqualTo(mode == CacheMode.WRITETHROUGH ? 1 : 0);
        assertThat(read(handle, 0)).isEqualTo(8);
        assertThat(scene.storage.count(Command.READ)).isZero();
      }
    }
  }

  @Test
  void twoWritesThroughToTheSameSectorLeaveTheSameInCacheAndStorage() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITETHROUGH, 16)) {
      Handle handle = scene.open();
      Gate gate = scene.stopAfter(Command.WRITE);
      Running one = Running.start(() -> write(handle, 512, 1));
      gate.awaitReached();
      Running other = Running.start(() -> write(handle, 512, 2));
      other.awaitParked();
      Running beside = Running.start(() -> write(handle, 1024, 3));
      beside.join();
      assertThat(scene.storage.valueAt(512)).as("its turn has not come").isEqualTo(1);
      gate.open();
      one.join();
      other.join();
      assertThat(read(handle, 512)).isEqualTo(2);
      assertThat(scene.storage.valueAt(512)).isEqualTo(2);
    }
  }

  @Test
  void aWriteThroughThatFailedIsNotReadFromTheCache() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITETHROUGH, 16)) {
      Handle handle = scene.open();
      write(handle, 0, 1);
      scene.storage.after(
          FakeBackend.failing(new NbdException(NbdError.EIO, "it may be there or not")),
          Command.WRITE);
      assertThatThrownBy(() -> write(handle, 0, 2)).hasMessage("it may be there or not");
      assertThat(read(handle, 0)).as("what the storage has").isEqualTo(2);
    }
  }

  @Test
  void aReadThatMeetsAWriteThroughDoesNotKeepWhatWasThereBefore() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITETHROUGH, 16)) {
      Handle handle = scene.open();
      Gate gate = scene.stopAfter(Command.READ);
      Running reader = Running.start(() -> read(handle, 0));
      gate.awaitReached();
      write(handle, 0, 7);
      gate.open();
      reader.join();
      assertThat(read(handle, 0)).isEqualTo(7);
    }
  }

  @Test
  void fuaIsDurableAndVisibleAtOnce() throws IOException {
    for (boolean fua : new boolean[] {false, true}) {
      FakeBackend storage = Scene.numbered(1 << 20);
      if (!fua) {
        storage.capabilities(Scene.CAPABILITIES.without(Capability.FUA));
      }
      try (Scene scene = new Scene(CacheMode.WRITEBACK, 16, storage)) {
        Handle handle = scene.open();
        write(handle, 0, 1);
        write(handle, 512, 2, FUA);
        write(handle, 1024, 3);
        assertThat(storage.durableAt(512)).as("%s", fua).isEqualTo(2);
        assertThat(read(scene.open(), 512)).isEqualTo(2);
        assertThat(storage.durableAt(0)).as("nobody asked for it").isEqualTo(first(0));
        handle.zero(4096, 4096, FUA);
        assertThat(storage.durableAt(4096)).isZero();
        assertThat(storage.count(Command.FLUSH)).isEqualTo(fua ? 0 : 2);
      }
    }
  }

  @Test
  void fuaReplacesWhatWasWrittenBeforeAndNotWhatIsWrittenMeanwhile() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    write(handle, 512, 1);
    Gate gate = scene.stop(Command.WRITE);
    ByteBuffer two = ByteBuffer.allocate(1024).putLong(0, 2).putLong(512, 2);
    Running fua = Running.start(() -> handle.write(two, 0, FUA));
    gate.awaitReached();
    assertThat(read(handle, 0)).as("it is not answered yet").isEqualTo(1);
    write(handle, 512, 3);
    gate.open();
    fua.join();
    assertThat(read(handle, 0)).isEqualTo(2);
    assertThat(read(handle, 512)).isEqualTo(3);
    handle.flush();
    assertThat(scene.storage.valueAt(0)).isEqualTo(2);
    assertThat(scene.storage.valueAt(512)).isEqualTo(3);
    assertThat(scene.storage.calls(Command.WRITE))
        .containsExactly(new Call(Command.WRITE, 0, 1024, FUA), Call.of(Command.WRITE, 512, 512));
  }

  @Test
  void zeroesAndTrimsArePassedOnAsSuchAndWhatTheyCoverIsNotWritten() throws IOException {
    for (CacheMode mode : CacheMode.values()) {
      try (Scene scene = new Scene(mode, 16)) {
        Handle handle = scene.open();
        write(handle, 0, 1);
        write(handle, BLOCK, 2);
        write(handle, 5 * BLOCK, 3);
        scene.storage.forgetCalls();
        handle.zero(0, BLOCK, CommandFlags.of(CommandFlag.NO_HOLE));
        handle.trim(BLOCK, BLOCK, CommandFlags.NONE);
        assertThat(read(handle, 0)).isZero();
        assertThat(read(handle, BLOCK)).isEqualTo(0x5555555555555555L);
        assertThat(scene.statistics.dirtyBytes()).isLessThanOrEqualTo(512);
        scene.filter.close();
        assertThat(scene.storage.calls())
            .as("%s", mode)
            .contains(
                new Call(Command.WRITE_ZEROES, 0, BLOCK, CommandFlags.of(CommandFlag.NO_HOLE)),
                Call.of(Command.TRIM, BLOCK, BLOCK))
            .doesNotContain(Call.of(Command.WRITE, 0, 512), Call.of(Command.WRITE, BLOCK, 512));
        assertThat(scene.storage.valueAt(0)).isZero();
        assertThat(scene.storage.valueAt(5 * BLOCK)).isEqualTo(3);
      }
    }
  }

  @Test
  void zeroesThatEndInTheMiddleOfSectorsKeepTheRestOfThem() throws IOException {
    for (CacheMode mode : CacheMode.values()) {
      try (Scene scene = new Scene(mode, 16)) {
        Handle handle = scene.open();
        handle.write(filled(3 * 512), 0, CommandFlags.NONE);
        handle.zero(100, 1100, CommandFlags.NONE);
        handle.zero(1300, 10, CommandFlags.NONE);
        handle.trim(1400, 30, CommandFlags.NONE);
        ByteBuffer into = ByteBuffer.allocate(3 * 512);
        handle.read(into, 0);
        for (int at = 0; at < 3 * 512; at++) {
          boolean isZero = (at >= 100 && at < 1200) || (at >= 1300 && at < 1310);
          assertThat(into.get(at)).as("%s at %d", mode, at).isEqualTo((byte) (isZero ? 0 : 1));
        }
      }
    }
  }

  private static ByteBuffer filled(int length) {
    byte[] ones = new byte[length];
    java.util.Arrays.fill(ones, (byte) 1);
    return ByteBuffer.wrap(ones);
  }

  @Test
  void whatIsWrittenWhileZeroesAreUnderWayIsKept() throws IOException {
    Handle handle = scene.open();
    write(handle, 512, 1);
    Gate gate = scene.stop(Command.WRITE_ZEROES);
    Running zeroing = Running.start(() -> handle.zero(0, BLOCK, CommandFlags.NONE));
    gate.awaitReached();
    write(handle, 512, 2);
    Running flush = Running.start(handle::flush);
    flush.awaitParked();
    assertThat(scene.storage.count(Command.WRITE)).as("it would be zeroed").isZero();
    gate.open();
    zeroing.join();
    flush.join();
    assertThat(read(handle, 512)).isEqualTo(2);
    assertThat(scene.storage.durableAt(512)).isEqualTo(2);
    assertThat(scene.storage.durableAt(0)).isZero();
  }

  @Test
  void aPartOfASectorThatIsWrittenWhileTheSectorChangesKeepsTheRestOfTheChange()
      throws IOException {
    for (Command changing : List.of(Command.WRITE, Command.WRITE_ZEROES, Command.TRIM)) {
      try (Scene scene = new Scene(CacheMode.WRITEBACK, 16)) {
        Handle handle = scene.open();
        handle.write(filled(SECTOR), SECTOR, CommandFlags.NONE);
        Gate gate = scene.stop(changing);
        Running change = Running.start(() -> change(handle, changing, SECTOR, SECTOR));
        gate.awaitReached();
        Running part = writeByTheQuickestWay(scene.open(), filled(10), 2 * SECTOR - 10);
        gate.open();
        change.join();
        part.join();
        byte[] expected = new byte[SECTOR];
        Arrays.fill(expected, (byte) (changing == Command.TRIM ? 0x55 : 0));
        Arrays.fill(expected, SECTOR - 10, SECTOR, (byte) 1);
        ByteBuffer into = ByteBuffer.allocate(SECTOR);
        handle.read(into, SECTOR);
        assertThat(into.array()).as("%s", changing).isEqualTo(expected);
        handle.flush();
        assertThat(Arrays.copyOfRange(scene.storage.durable(), SECTOR, 2 * SECTOR))
            .as("%s", changing)
            .isEqualTo(expected);
      }
    }
  }

  /** Trims or zeroes a range, or writes zeroes with FUA. */
  private static void change(Handle handle, Command changing, long offset, int length)
      throws IOException {
    switch (changing) {
      case WRITE -> handle.write(ByteBuffer.allocate(length), offset, FUA);
      case WRITE_ZEROES -> handle.zero(offset, length, CommandFlags.NONE);
      default -> handle.trim(offset, length, CommandFlags.NONE);
    }
  }

  /**
   * Writes as the server does: at once if that needs no waiting, otherwise on a thread of its own.
   */
  private static Running writeByTheQuickestWay(Handle handle, ByteBuffer data, long offset)
      throws IOException {
    return handle.tryNow(Operation.write(data, offset, CommandFlags.NONE))
        ? Running.start(() -> {})
        : Running.start(() -> handle.write(data, offset, CommandFlags.NONE));
  }

  /** The first half of the sector is read from the storage before FUA is answered. */
  @Test
  void whoHasSeenAPartOfASectorAndThenANewerWriteDoesNotSeeThatPartAgain() throws IOException {
    Handle handle = scene.open();
    Gate gate = scene.stopAfter(Command.WRITE);
    Running fua = Running.start(() -> handle.write(filled(SECTOR / 2), 0, FUA));
    gate.awaitReached();
    assertThat(read(handle, 0)).as("it is stored").isEqualTo(0x0101010101010101L);
    Running newer = writeByTheQuickestWay(scene.open(), sector(7), 0);
    gate.open();
    fua.join();
    newer.join();
    assertThat(read(handle, 0)).isEqualTo(7);
    handle.flush();
    assertThat(scene.storage.durableAt(0)).isEqualTo(7);
  }

  @Test
  void aWriteOverTwoBlocksThatIsDeclinedHasChangedNeither() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 4)) {
      Handle handle = scene.open();
      Gate gate = scene.stop(Command.WRITE);
      write(handle, 10 * BLOCK, 1);
      write(handle, 11 * BLOCK, 1);
      // There may be one more dirty block, but not two.
      ByteBuffer data = filled(2 * SECTOR);
      assertThat(handle.tryNow(Operation.write(data, BLOCK - SECTOR, CommandFlags.NONE))).isFalse();
      assertThat(data.position()).isZero();
      assertThat(read(handle, BLOCK - SECTOR)).isEqualTo(first(BLOCK - SECTOR));
      assertThat(handle.tryNow(Operation.write(filled(SECTOR), BLOCK - SECTOR, CommandFlags.NONE)))
          .isTrue();
      gate.open();
    }
  }

  @Test
  void aWriteOverBlocksForWhichOthersHaveToLeaveIsMadeAtOnce() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 8)) {
      Handle handle = scene.open();
      handle.read(ByteBuffer.allocate(8 * BLOCK), 0);
      Gate gate = scene.stop(Command.WRITE);
      ByteBuffer data = filled(4 * BLOCK + SECTOR);
      assertThat(handle.tryNow(Operation.write(data, 6 * BLOCK, CommandFlags.NONE))).isTrue();
      assertThat(data.hasRemaining()).isFalse();
      assertThat(handle.tryNow(Operation.write(filled(SECTOR), 20 * BLOCK, CommandFlags.NONE)))
          .isTrue();
      assertThat(handle.tryNow(Operation.write(filled(SECTOR), 21 * BLOCK, CommandFlags.NONE)))
          .as("too much is dirty")
          .isFalse();
      assertThat(handle.tryNow(Operation.write(filled(8 * BLOCK), 30 * BLOCK, CommandFlags.NONE)))
          .as("never fits")
          .isFalse();
      ByteBuffer into = ByteBuffer.allocate(data.capacity());
      handle.read(into, 6 * BLOCK);
      assertThat(into.flip()).isEqualTo(data.flip());
      gate.open();
    }
  }

  /** The cache keeps a write until it is flushed, and so can repeat it after the crash. */
  @Test
  void aChangeThatFailsDoesNotMakeAStorageThatBreaksLoseWhatWasWrittenBefore() throws IOException {
    Handle handle = scene.open();
    write(handle, SECTOR, 1);
    scene.fail(Command.FLUSH, NbdError.EIO);
    assertThatThrownBy(handle::flush).as("stored, but not flushed").isNotNull();
    scene.fail(Command.WRITE_ZEROES, NbdError.ENOTSUP);
    CommandFlags fast = CommandFlags.of(CommandFlag.FAST_ZERO);
    assertThatThrownBy(() -> handle.zero(0, BLOCK, fast)).isNotNull();
    scene.storage.heal();
    scene.storage.crash();
    handle.flush();
    assertThat(scene.storage.durableAt(SECTOR)).isEqualTo(1);
    assertThat(read(handle, SECTOR)).isEqualTo(1);
  }

  /** The break makes what was written before dirty again, which must not replace the change. */
  @Test
  void aChangeThatOpensBrokenStorageAgainIsNewerThanWhatTheStorageHasLost() throws IOException {
    changesAfterABreak(handle -> write(handle, SECTOR, 2, FUA), 2);
    changesAfterABreak(handle -> handle.zero(SECTOR, SECTOR, CommandFlags.NONE), 0);
    long trimmed = FakeBackend.TRIMMED * 0x0101010101010101L;
    changesAfterABreak(handle -> handle.trim(SECTOR, SECTOR, CommandFlags.NONE), trimmed);
  }

  private static void changesAfterABreak(Storage.Call change, long changed) throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 16)) {
      Handle handle = scene.open();
      write(handle, SECTOR, 1);
      scene.fail(Command.FLUSH, NbdError.EIO);
      assertThatThrownBy(handle::flush).as("stored, but not flushed").isNotNull();
      scene.storage.heal();
      scene.storage.crash();
      assertThatThrownBy(() -> handle.extents(0, BLOCK, 1)).as("the break").isNotNull();
      change.on(handle);
      assertThat(read(handle, SECTOR)).isEqualTo(changed);
      handle.flush();
      assertThat(read(handle, SECTOR)).isEqualTo(changed);
      assertThat(scene.storage.durableAt(SECTOR)).isEqualTo(changed);
    }
  }

  @Test
  void zeroesThatAreRefusedChangeNothing() throws IOException {
    Handle handle = scene.open();
    write(handle, 512, 1);
    scene.fail(Command.WRITE_ZEROES, NbdError.ENOTSUP);
    CommandFlags fast = CommandFlags.of(CommandFlag.FAST_ZERO);
    assertThatThrownBy(() -> handle.zero(100, BLOCK, fast)).isInstanceOf(NbdException.class);
    assertThat(read(handle, 0)).isEqualTo(first(0));
    assertThat(read(handle, 512)).isEqualTo(1);
    scene.storage.heal();
    handle.flush();
    assertThat(scene.storage.durableAt(512)).isEqualTo(1);
  }

  @Test
  void zeroesOfAWholeDiskAreOneCallAndForgetAllThatIsCached() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 64, Scene.numbered(8 << 20))) {
      Handle handle = scene.open();
      read(handle, 0);
      write(handle, 1 << 20, 1);
      scene.storage.forgetCalls();
      handle.zero(0, 8 << 20, CommandFlags.NONE);
      assertThat(scene.storage.calls()).containsExactly(Call.of(Command.WRITE_ZEROES, 0, 8 << 20));
      assertThat(read(handle, 0)).isZero();
      assertThat(read(handle, 1 << 20)).isZero();
    }
  }

  @Test
  void whatHasYetToBeWrittenBackIsDataInTheMap() throws IOException {
    Handle handle = scene.open();
    write(handle, 1024, 1);
    write(handle, 1536, 1);
    write(handle, 8192, 1);
    assertThat(handle.extents(0, 16384, 100))
        .containsExactly(
            Extent.hole(1024),
            Extent.data(1024),
            Extent.hole(6144),
            Extent.data(512),
            Extent.hole(7680));
    assertThat(handle.extents(512, 16384, 2)).containsExactly(Extent.hole(512), Extent.data(1024));
    handle.flush();
    assertThat(handle.extents(0, 16384, 100)).containsExactly(Extent.hole(16384));
  }

  /** The storage says that all of it, up to the end of the export, is a hole. */
  @Test
  void aHoleThatTheStorageKnowsToReachFurtherEndsWhereTheQuestionDoes() throws IOException {
    Handle handle = scene.open();
    write(handle, BLOCK, 1);
    assertThat(handle.extents(0, BLOCK, 100)).containsExactly(Extent.hole(BLOCK));
  }

  @Test
  void whatIsDirtyBeforeThePlaceThatIsAskedForIsNotPartOfItsMap() throws IOException {
    Handle handle = scene.open();
    write(handle, 0, 1);
    write(handle, 3 * SECTOR, 1);
    assertThat(handle.extents(SECTOR, BLOCK, 1)).containsExactly(Extent.hole(2 * SECTOR));
    assertThat(handle.extents(SECTOR, SECTOR, 2)).containsExactly(Extent.hole(SECTOR));
  }

  /** Reads may still return the old data after the extents were answered. */
  @Test
  void zeroesThatAreUnderWayAreNoHoleYet() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITETHROUGH, 16)) {
      Handle handle = scene.open();
      read(handle, SECTOR);
      Gate gate = scene.stopAfter(Command.WRITE_ZEROES);
      Running zeroing = Running.start(() -> handle.zero(SECTOR, SECTOR, CommandFlags.NONE));
      gate.awaitReached();
      assertThat(handle.extents(0, BLOCK, 10))
          .containsExactly(
              Extent.hole(SECTOR), Extent.data(SECTOR), Extent.hole(BLOCK - 2 * SECTOR));
      assertThat(read(handle, SECTOR)).isEqualTo(first(SECTOR));
      gate.open();
      zeroing.join();
      assertThat(handle.extents(0, BLOCK, 10)).containsExactly(Extent.hole(BLOCK));
    }
  }

  @Test
  void aMapOfManyChangesSaysNothingOfThoseItDoesNotGetTo() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 64)) {
      Handle handle = scene.open();
      for (int sector = 1; sector < 100; sector += 2) {
        write(handle, sector * 512L, sector);
      }
      assertThat(handle.extents(512, 1 << 19, 1)).containsExactly(Extent.data(512));
      assertThat(handle.extents(0, 1 << 19, 5))
          .containsExactly(
              Extent.hole(512),
              Extent.data(512),
              Extent.hole(512),
              Extent.data(512),
              Extent.hole(512));
    }
  }

  @Test
  void aWriterWaitsForWriteBackWhenMuchIsDirty() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 8)) {
      Handle handle = scene.open();
      for (int block = 0; block < 100; block++) {
        write(handle, (long) block * BLOCK, 1000 + block);
      }
      assertThat(scene.statistics.dirtyBytes()).isLessThanOrEqualTo(6 * 512);
      for (int block = 0; block < 100; block++) {
        assertThat(read(handle, (long) block * BLOCK)).isEqualTo(1000 + block);
      }
    }
  }

  @Test
  void aWriterGetsTheStoragesErrorWhenNothingCanBeWrittenBack() throws IOException {
    Scene scene = new Scene(CacheMode.WRITEBACK, 8);
    Handle handle = scene.open();
    scene.fail(Command.WRITE, NbdError.ENOSPC);
    for (int block = 0; block < 6; block++) {
      write(handle, (long) block * BLOCK, block);
    }
    assertThatThrownBy(() -> write(handle, 6 * BLOCK, 6))
        .isInstanceOfSatisfying(
            NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.ENOSPC));
    assertThat(handle.tryNow(Operation.write(sector(6), 6 * BLOCK, CommandFlags.NONE))).isFalse();
    for (int block = 0; block < 6; block++) {
      assertThat(read(handle, (long) block * BLOCK)).as("nothing is dropped").isEqualTo(block);
    }
    scene.close();
    assertThat(scene.storage.valueAt(5 * BLOCK)).isEqualTo(5);
  }

  @Test
  void oneExportsFailuresDoNotStopTheOthers() throws IOException {
    try (Scene scene = new Scene(CacheMode.WRITEBACK, 8)) {
      Handle failing = scene.filter.open("failing", false);
      Handle good = scene.filter.open("good", false);
      scene.storage.hook(
          call -> {
            if (call.offset() < 100L * BLOCK) {
              throw new NbdException(NbdError.EIO, "no");
            }
          },
          Command.WRITE);
      for (int block = 0; block < 6; block++) {
        write(failing, (long) block * BLOCK, block);
      }
      for (int block = 100; block < 120; block++) {
        write(good, (long) block * BLOCK, block);
        assertThat(read(good, (long) block * BLOCK)).isEqualTo(block);
      }
      good.flush();
      assertThat(scene.storage.durableAt(119 * BLOCK)).isEqualTo(119);
    }
  }

  @Test
  void whatIsShownIsTheCachesOwnWhereItAnswersBeforeTheStorage() throws IOException {
    FakeBackend storage = Scene.zeroed(1 << 20);
    storage.capabilities(
        Scene.CAPABILITIES.without(Capability.FLUSH, Capability.FUA, Capability.TRIM));
    for (CacheMode mode : CacheMode.values()) {
      try (Scene scene = new Scene(mode, 16, storage)) {
        boolean through = mode == CacheMode.WRITETHROUGH;
        Handle handle = scene.open();
        assertThat(handle.capabilities().has(Capability.MULTI_CONN)).isEqualTo(!through);
        assertThat(handle.capabilities().has(Capability.FLUSH)).isEqualTo(!through);
        assertThat(handle.capabilities().has(Capability.FUA)).isEqualTo(!through);
        assertThat(handle.capabilities().has(Capability.TRIM)).isFalse();
        Handle reader = scene.filter.open("", true);
        assertThat(reader.capabilities().has(Capability.WRITE)).isFalse();
      }
    }
  }
}
