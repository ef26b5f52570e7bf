package nbd.filter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.util.Arrays;
import java.util.List;
import nbd.filter.Statistics.Count;
import nbd.memory.MemoryBackend;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Fua;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.ReadTarget;
import nbd.storage.ThreadModel;
import nbd.testing.FakeBackend;
import nbd.testing.FakeBackend.Call;
import nbd.testing.HookedBackend;
import org.junit.jupiter.api.Test;

/** FUA by flush, and counting. */
final class FiltersTest {
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);
  private static final Call FLUSH = Call.of(Command.FLUSH, 0, 0);

  private static FakeBackend fake(Fua fua, Capability... capabilities) {
    return new FakeBackend(1000, BlockSizes.DEFAULT, Capabilities.of(fua, capabilities));
  }

  @Test
  void fuaIsAFlushWhereTheStorageCanFlushOnly() throws IOException {
    FakeBackend fake =
        new FakeBackend(1000, BlockSizes.DEFAULT, FakeBackend.all().with(Fua.EMULATE));
    try (Handle handle = new FuaFilter(fake, FuaMode.PASS).open("", false)) {
      assertThat(handle.capabilities().fua()).isEqualTo(Fua.NATIVE);
      handle.write(ByteBuffer.allocate(3), 1, FUA);
      handle.trim(2, 3, FUA);
      handle.zero(4, 5, FUA.with(CommandFlag.NO_HOLE));
      handle.write(ByteBuffer.allocate(3), 1, CommandFlags.NONE);
      handle.trim(2, 3, CommandFlags.NONE);
      handle.zero(4, 5, CommandFlags.NONE);
      assertThat(fake.calls())
          .containsExactly(
              Call.of(Command.WRITE, 1, 3),
              FLUSH,
              Call.of(Command.TRIM, 2, 3),
              FLUSH,
              new Call(Command.WRITE_ZEROES, 4, 5, CommandFlags.of(CommandFlag.NO_HOLE)),
              FLUSH,
              Call.of(Command.WRITE, 1, 3),
              Call.of(Command.TRIM, 2, 3),
              Call.of(Command.WRITE_ZEROES, 4, 5));
    }
  }

  @Test
  void aFuaWhoseFlushFailsFails() throws IOException {
    FakeBackend fake =
        new FakeBackend(1000, BlockSizes.DEFAULT, FakeBackend.all().with(Fua.EMULATE))
            .hook(
                call -> {
                  if (call.command() == Command.FLUSH) {
                    throw new IOException("lost");
                  }
                });
    try (Handle handle = new FuaFilter(fake, FuaMode.PASS).open("", false)) {
      assertThatThrownBy(() -> handle.write(ByteBuffer.allocate(1), 0, FUA)).hasMessage("lost");
      assertThatThrownBy(() -> handle.trim(0, 1, FUA)).hasMessage("lost");
      assertThatThrownBy(() -> handle.zero(0, 1, FUA)).hasMessage("lost");
    }
  }

  @Test
  void aFuaWhoseWriteFailsDoesNotFlush() throws IOException {
    FakeBackend fake =
        new FakeBackend(1000, BlockSizes.DEFAULT, FakeBackend.all().with(Fua.EMULATE))
            .hook(
                call -> {
                  throw new IOException("full");
                });
    try (Handle handle = new FuaFilter(fake, FuaMode.PASS).open("", false)) {
      assertThatThrownBy(() -> handle.write(ByteBuffer.allocate(1), 0, FUA)).hasMessage("full");
      assertThat(fake.count(Command.FLUSH)).isZero();
    }
  }

  @Test
  void aFuaOfTheStoragesOwnIsPassedOn() throws IOException {
    FakeBackend fake = new FakeBackend(1000);
    try (Handle handle = new FuaFilter(fake, FuaMode.PASS).open("", false)) {
      handle.write(ByteBuffer.allocate(3), 1, FUA);
      assertThat(fake.calls()).containsExactly(new Call(Command.WRITE, 1, 3, FUA));
    }
  }

  @Test
  void noFuaIsPromisedWhereNothingCanFlush() throws IOException {
    for (Fua fua : List.of(Fua.NONE, Fua.EMULATE)) {
      try (Handle handle =
          new FuaFilter(fake(fua, Capability.WRITE), FuaMode.PASS).open("", false)) {
        assertThat(handle.capabilities().fua()).isEqualTo(Fua.NONE);
      }
    }
  }

  @Test
  void everyCallIsCountedOnce() throws IOException {
    Statistics statistics = new Statistics();
    FakeBackend fake = new FakeBackend(1000);
    try (Handle handle = new StatisticsFilter(fake, statistics).open("", false)) {
      for (int i = 0; i < 2; i++) {
        handle.read(ByteBuffer.allocate(5), 0);
        handle.write(ByteBuffer.allocate(7), 0, CommandFlags.NONE);
      }
      handle.write(ByteBuffer.allocate(11), 0, FUA);
      handle.flush();
      handle.trim(0, 13, FUA);
      handle.zero(0, 17, CommandFlags.NONE);
      handle.cache(0, 19);
      handle.extents(0, 23, 1);
    }
    assertCounts(statistics, 2, 3, 1, 2, 1, 1, 1, 1, 10, 25, 0, 1);
  }

  @Test
  void fastCallsAreCountedOnceAndOnlyIfTheyDidIt() throws IOException {
    Statistics memory = new Statistics();
    try (Handle handle = new StatisticsFilter(new MemoryBackend(1000), memory).open("", false)) {
      assertThat(handle.tryNow(Operation.read(ByteBuffer.allocate(5), 0))).isTrue();
      assertThat(handle.tryNow(Operation.write(ByteBuffer.allocate(7), 0, CommandFlags.NONE)))
          .isTrue();
      assertThat(handle.tryNow(Operation.transfer(0, 10, NOWHERE))).isFalse();
    }
    assertCounts(memory, 1, 1, 0, 0, 0, 0, 0, 0, 5, 7, 0, 1);

    Statistics fake = new Statistics();
    try (Handle handle = new StatisticsFilter(new FakeBackend(1000), fake).open("", false)) {
      assertThat(handle.tryNow(Operation.read(ByteBuffer.allocate(5), 0))).isFalse();
      assertThat(handle.tryNow(Operation.write(ByteBuffer.allocate(7), 0, CommandFlags.NONE)))
          .isFalse();
      handle.read(ByteBuffer.allocate(5), 0);
    }
    assertCounts(fake, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 1);
  }

  @Test
  void dataThatIsTransferredIsCountedAsARead() throws IOException {
    Statistics statistics = new Statistics();
    Backend transferring =
        new HookedBackend(
            new MemoryBackend(1000), (next, operation, patience, end) -> Outcome.DONE);
    try (Handle handle = new StatisticsFilter(transferring, statistics).open("", false)) {
      assertThat(handle.tryNow(Operation.transfer(0, 10, NOWHERE))).isTrue();
    }
    assertCounts(statistics, 1, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1);
  }

  @Test
  void failuresAreCountedToo() throws IOException {
    Statistics statistics = new Statistics();
    FakeBackend fake =
        new FakeBackend(1000)
            .hook(
                call -> {
                  throw new IOException("no");
                });
    try (Handle handle = new StatisticsFilter(fake, statistics).open("", false)) {
      assertThatThrownBy(() -> handle.read(ByteBuffer.allocate(5), 0)).hasMessage("no");
      assertThatThrownBy(handle::flush).hasMessage("no");
    }
    assertThat(statistics.get(Count.READ)).isEqualTo(1);
    assertThat(statistics.get(Count.FLUSH)).isEqualTo(1);
    assertThat(statistics.get(Count.ERROR)).isEqualTo(2);
  }

  private static final ReadTarget NOWHERE =
      new ReadTarget() {
        @Override
        public WritableByteChannel begin() {
          throw new AssertionError("nothing is to be sent");
        }

        @Override
        public void sent(long bytes) {
          throw new AssertionError("nothing is to be sent");
        }

        @Override
        public ByteBuffer piece() {
          throw new AssertionError("nothing is to be sent");
        }

        @Override
        public void write(ByteBuffer piece) {
          throw new AssertionError("nothing is to be sent");
        }
      };

  private static void assertCounts(Statistics statistics, long... expected) {
    long[] found = Arrays.stream(Count.values()).mapToLong(statistics::get).toArray();
    assertThat(found).as("in the order of Count").isEqualTo(expected);
  }

  @Test
  void capabilitiesAreChangedOneByOne() {
    Capabilities all = FakeBackend.all();
    assertThat(all.readOnly().set())
        .containsExactlyInAnyOrder(
            Capability.FLUSH,
            Capability.CACHE,
            Capability.EXTENTS,
            Capability.MULTI_CONN,
            Capability.ROTATIONAL);
    assertThat(all.readOnly().fua()).isEqualTo(Fua.NATIVE);
    assertThat(all.without(Capability.WRITE).with(Capability.WRITE)).isEqualTo(all);
    assertThat(Capabilities.of(Fua.NONE).with(Fua.EMULATE)).isEqualTo(Capabilities.of(Fua.EMULATE));
    assertThat(Capabilities.of(Fua.NONE).has(Capability.WRITE)).isFalse();
  }

  @Test
  void ofTwoThreadModelsTheOneWithLessFreedomHolds() {
    assertThat(ThreadModel.PARALLEL.and(ThreadModel.SERIALIZE_REQUESTS))
        .isEqualTo(ThreadModel.SERIALIZE_REQUESTS);
    assertThat(ThreadModel.SERIALIZE_CONNECTIONS.and(ThreadModel.PARALLEL))
        .isEqualTo(ThreadModel.SERIALIZE_CONNECTIONS);
  }
}
