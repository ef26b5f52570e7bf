package nbd.filter;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import nbd.cache.CacheFilter;
import nbd.cache.CacheMode;
import nbd.cache.CacheSettings;
import nbd.cache.CacheStatistics;
import nbd.filter.Statistics.Count;
import nbd.memory.MemoryBackend;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.ThreadModel;
import nbd.testing.BitmapBackend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The dirty bitmap of storage, asked for through filters. */
@Timeout(300)
final class PassedBitmapTest {
  private static final int PAGE = BitmapBackend.PAGE;
  private static final long SIZE = 10 * PAGE;

  /** A filter, or the cache, in front of storage. */
  enum Filter {
    NONE,
    CONNECTION_CACHE,
    DELAY,
    ERROR,
    FUA,
    SERIALIZE,
    STATISTICS,
    MULTI_CONN,
    WRITEBACK,
    WRITETHROUGH,
    UNSAFE;

    private Backend around(Backend next) {
      Duration none = Duration.ZERO;
      return switch (this) {
        case NONE -> next;
        case CONNECTION_CACHE -> new ConnectionCacheFilter(next, 1 << 20);
        case DELAY -> new DelayFilter(next, Duration.ofNanos(1), none, none);
        case ERROR -> new ErrorFilter(next, ErrorRate.NONE, ErrorRate.NONE, ErrorRate.NONE, 1);
        case FUA -> new FuaFilter(next, FuaMode.EMULATE);
        case SERIALIZE -> new SerializeFilter(next, ThreadModel.SERIALIZE_REQUESTS);
        case STATISTICS -> new StatisticsFilter(next, new Statistics());
        case MULTI_CONN ->
            new MultiConnFilter(next, MultiConnSettings.DEFAULT.with(MultiConnMode.EMULATE));
        case WRITEBACK, WRITETHROUGH, UNSAFE -> cache(next, CacheMode.valueOf(name()));
      };
    }

    private static Backend cache(Backend next, CacheMode mode) {
      return new CacheFilter(next, CacheSettings.of(mode), true, new CacheStatistics());
    }
  }

  @ParameterizedTest
  @EnumSource
  void everyFilterPassesItOnAsItIs(Filter filter) throws IOException {
    for (boolean readOnly : new boolean[] {true, false}) {
      Backend storage = new BitmapBackend(new MemoryBackend(SIZE), "day");
      try (Backend backend = filter.around(storage);
          Handle handle = backend.open("", readOnly)) {
        assertThat(handle.facts().dirtyBitmap()).contains("day");
        if (!readOnly) {
          handle.write(ByteBuffer.allocate(3 * PAGE), 1000, CommandFlags.NONE);
        }
        for (int most : new int[] {1, 3, 100}) {
          Operation question = Operation.dirty(PAGE + 10, SIZE - PAGE - 10, most);
          handle.run(question);
          assertThat(question.extents())
              .isEqualTo(BitmapBackend.dirtyExtents(PAGE + 10, SIZE - PAGE - 10, most));
        }
      }
    }
  }

  @ParameterizedTest
  @EnumSource
  void storageWithoutOneStaysWithoutOne(Filter filter) throws IOException {
    try (Backend backend = filter.around(new MemoryBackend(SIZE));
        Handle handle = backend.open("", true)) {
      assertThat(handle.facts().dirtyBitmap()).isEmpty();
    }
  }

  @Test
  void aCopyOfTheQuestionIsTheSameQuestion() {
    Operation question = Operation.dirty(1, 2, 3);
    assertThat(question.copy().asksForDirty()).isTrue();
    assertThat(question.copy().most()).isEqualTo(3);
    assertThat(Operation.extents(1, 2, 3).copy().asksForDirty()).isFalse();
    assertThat(question.reading(ByteBuffer.allocate(1), 0).asksForDirty()).isFalse();
  }

  @Test
  void itIsCountedAsAQuestionForExtents() throws IOException {
    Statistics counts = new Statistics();
    Backend storage = new BitmapBackend(new MemoryBackend(SIZE), "day");
    try (Backend backend = new StatisticsFilter(storage, counts);
        Handle handle = backend.open("", true)) {
      handle.run(Operation.dirty(0, 1, 1));
      assertThat(counts.get(Count.EXTENTS)).isEqualTo(1);
    }
  }
}
