package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.function.UnaryOperator;
import nbd.cache.CacheMode;
import nbd.cache.CacheSettings;
import nbd.file.FileBackend;
import nbd.file.FileSettings;
import nbd.filter.ConnectionCacheFilter;
import nbd.filter.FuaMode;
import nbd.filter.SerializeFilter;
import nbd.filter.Statistics;
import nbd.filter.Statistics.Count;
import nbd.filter.StatisticsFilter;
import nbd.memory.MemoryBackend;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.posix.PosixFile;
import nbd.protocol.BlockSizes;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.ThreadModel;
import nbd.testing.FakeBackend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The effects of filters on each other that the manual's tables do not have. */
@Timeout(300)
final class FilterStackTest {
  private static final FilterStack.Choice DEFAULT = with(FuaMode.PASS, MultiConnMode.AUTO);

  private static FilterStack.Choice cached(UnaryOperator<Backend> experiments, boolean ownNames) {
    return choice(
        FuaMode.PASS,
        MultiConnMode.AUTO,
        Optional.of(new CacheSettings(CacheMode.WRITEBACK, 1 << 20, 4096)),
        experiments,
        ownNames,
        Optional.empty());
  }

  private static FilterStack.Choice with(FuaMode fua, MultiConnMode mode) {
    return counted(fua, mode, Optional.empty());
  }

  private static FilterStack.Choice counted(
      FuaMode fua, MultiConnMode mode, Optional<StatisticsReport> report) {
    return choice(fua, mode, Optional.empty(), UnaryOperator.identity(), false, report);
  }

  private static FilterStack.Choice choice(
      FuaMode fua,
      MultiConnMode mode,
      Optional<CacheSettings> cache,
      UnaryOperator<Backend> experiments,
      boolean ownNames,
      Optional<StatisticsReport> report) {
    return new FilterStack.Choice(
        fua,
        MultiConnSettings.DEFAULT.with(mode),
        cache,
        experiments,
        UnaryOperator.identity(),
        ownNames,
        report);
  }

  private static StatisticsReport report() {
    return new StatisticsReport(
        Path.of("unused"), new Statistics(), Optional.empty(), new Statistics());
  }

  private static FakeBackend without(Capability... missing) {
    var capabilities = FakeBackend.all().without(Capability.FUA);
    for (Capability each : missing) {
      capabilities = capabilities.without(each);
    }
    return new FakeBackend(4096, BlockSizes.DEFAULT, capabilities);
  }

  @Test
  void whatEveryClientWillBeToldIsKnownBeforeOneComes() throws IOException {
    FakeBackend flushless = without(Capability.FLUSH, Capability.MULTI_CONN);
    assertThat(new FilterStack(flushless, DEFAULT).refusal("", false).orElseThrow())
        .contains("no flush", "--multi-conn-mode=disable");
    assertThat(new FilterStack(flushless, DEFAULT).refusal("", true)).isEmpty();
    FilterStack.Choice forced = with(FuaMode.FORCE, MultiConnMode.DISABLE);
    assertThat(new FilterStack(flushless, forced).refusal("", false).orElseThrow())
        .contains("neither FUA nor flush", "--fua=pass");
  }

  @Test
  void askingIsNotCounted() throws IOException {
    StatisticsReport report = report();
    FilterStack stack =
        new FilterStack(
            new MemoryBackend(4096),
            counted(FuaMode.PASS, MultiConnMode.AUTO, Optional.of(report)));
    assertThat(stack.refusal("", false)).isEmpty();
    for (Statistics statistics : List.of(report.client(), report.backend())) {
      assertThat(Arrays.stream(Count.values()).mapToLong(statistics::get).sum()).isZero();
    }
  }

  @Test
  void nothingIsCountedWhereNobodyReadsTheCounts() throws IOException {
    FakeBackend storage = new FakeBackend(4096);
    UnaryOperator<Backend> isStorage =
        next -> {
          assertThat(next).isSameAs(storage);
          return next;
        };
    FilterStack stack = new FilterStack(storage, cached(isStorage, false));
    assertThat(stack.backend()).isNotInstanceOf(StatisticsFilter.class);
  }

  @Test
  void fuaIsQuickWhereNoFilterWaitsForMore() throws IOException {
    FakeBackend quick = new FakeBackend(4096).quickFua();
    assertThat(fuaIsQuick(quick, DEFAULT)).isTrue();
    assertThat(fuaIsQuick(new FakeBackend(4096), DEFAULT)).isFalse();
    assertThat(fuaIsQuick(quick, with(FuaMode.EMULATE, MultiConnMode.AUTO))).isFalse();
    assertThat(fuaIsQuick(quick, cached(UnaryOperator.identity(), false))).isFalse();
  }

  private static boolean fuaIsQuick(Backend backend, FilterStack.Choice choice) throws IOException {
    try (Handle handle = new FilterStack(backend, choice).backend().open("", false)) {
      CommandFlags fua = CommandFlags.of(CommandFlag.FUA);
      return handle.tryNow(Operation.write(ByteBuffer.allocateDirect(512), 0, fua));
    }
  }

  @Test
  void dataIsFetchedAheadOnlyWhereAllHandlesHaveOneCache(@TempDir Path directory)
      throws IOException {
    assumeTrue(PosixFile.isAvailable(), "needs Linux");
    Path image = Files.write(directory.resolve("disk"), new byte[4096]);
    try (FileBackend file = FileBackend.open(image, FileSettings.DEFAULT)) {
      assertThat(fetchesAhead(file, DEFAULT)).isTrue();
      assertThat(
              fetchesAhead(
                  file, counted(FuaMode.FORCE, MultiConnMode.EMULATE, Optional.of(report()))))
          .isTrue();
      assertThat(fetchesAhead(file, cached(UnaryOperator.identity(), false))).isFalse();
      assertThat(fetchesAhead(new ConnectionCacheFilter(file, 4096), DEFAULT)).isFalse();
    }
    assertThat(fetchesAhead(new FakeBackend(4096), DEFAULT)).isFalse();
  }

  private static boolean fetchesAhead(Backend backend, FilterStack.Choice choice)
      throws IOException {
    try (Handle handle = new FilterStack(backend, choice).backend().open("", false)) {
      return handle.prefetch().isPresent();
    }
  }

  @Test
  void clientsAreCountedBeforeAllFiltersAndTheStorageAfterThem() throws IOException {
    StatisticsReport report = report();
    FilterStack stack =
        new FilterStack(
            without(Capability.MULTI_CONN),
            counted(FuaMode.EMULATE, MultiConnMode.EMULATE, Optional.of(report)));
    try (Handle handle = stack.backend().open("", false)) {
      handle.write(ByteBuffer.allocate(512), 0, CommandFlags.of(CommandFlag.FUA));
    }
    assertThat(report.client().get(Count.FUA)).isEqualTo(1);
    assertThat(report.client().get(Count.FLUSH)).isZero();
    assertThat(report.backend().get(Count.FUA)).isZero();
    assertThat(report.backend().get(Count.FLUSH)).isEqualTo(1);
  }

  /** There is no flush by which a promise could be kept. */
  @Test
  void whereFlushesAreDroppedNothingIsPromisedThatTheStorageDoesNotPromise() throws IOException {
    FilterStack.Choice discard = with(FuaMode.DISCARD, MultiConnMode.AUTO);
    for (boolean promises : new boolean[] {false, true}) {
      FakeBackend fake = promises ? without() : without(Capability.MULTI_CONN);
      try (Handle handle = new FilterStack(fake, discard).backend().open("", false)) {
        assertThat(handle.capabilities().has(Capability.MULTI_CONN)).isEqualTo(promises);
      }
    }
  }

  @Test
  void namesOfTheSameContentShareACache() throws IOException {
    try (Backend backend =
            new FilterStack(new MemoryBackend(1 << 20), cached(UnaryOperator.identity(), false))
                .backend();
        Handle one = backend.open("one", false);
        Handle other = backend.open("other", false)) {
      assertThat(first(other)).isZero();
      one.write(ByteBuffer.wrap(new byte[] {7}), 0, CommandFlags.NONE);
      assertThat(first(other)).isEqualTo((byte) 7);
    }
  }

  private static byte first(Handle handle) throws IOException {
    ByteBuffer data = ByteBuffer.allocate(1);
    handle.read(data, 0);
    return data.get(0);
  }

  /** The cache has one connection to the storage, which any number of clients share. */
  @Test
  void clientsOfACacheNeedNotComeOneAfterTheOther() throws IOException {
    UnaryOperator<Backend> oneByOne =
        backend -> new SerializeFilter(backend, ThreadModel.SERIALIZE_CONNECTIONS);
    FilterStack plain =
        new FilterStack(
            new MemoryBackend(1 << 20),
            choice(
                FuaMode.PASS,
                MultiConnMode.AUTO,
                Optional.empty(),
                oneByOne,
                false,
                Optional.empty()));
    assertThat(plain.maxConnections(0)).isEqualTo(1);
    FilterStack cached = new FilterStack(new MemoryBackend(1 << 20), cached(oneByOne, false));
    assertThat(cached.maxConnections(0)).isZero();
    try (Backend backend = cached.backend();
        Handle one = backend.open("", false);
        Handle other = backend.open("", false)) {
      assertThat(one.capabilities().has(Capability.MULTI_CONN)).isTrue();
      one.write(ByteBuffer.wrap(new byte[] {5}), 0, CommandFlags.NONE);
      assertThat(first(other)).isEqualTo((byte) 5);
    }
  }
}
