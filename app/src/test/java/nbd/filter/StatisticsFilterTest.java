package nbd.filter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.util.Arrays;
import nbd.filter.Statistics.Count;
import nbd.memory.MemoryBackend;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.ReadTarget;
import nbd.testing.FakeBackend;
import nbd.testing.HookedBackend;
import org.junit.jupiter.api.Test;

/** The counts of operations, each counted once. */
final class StatisticsFilterTest {
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);

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
      assertThat(handle.tryNow(new Operation().transferring(0, 10, NOWHERE))).isFalse();
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
      assertThat(handle.tryNow(new Operation().transferring(0, 10, NOWHERE))).isTrue();
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
}
