package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Optional;
import java.util.function.UnaryOperator;
import nbd.cache.CacheMode;
import nbd.cache.CacheSettings;
import nbd.filter.FuaMode;
import nbd.filter.SerializeFilter;
import nbd.filter.Statistics;
import nbd.filter.Statistics.Count;
import nbd.memory.MemoryBackend;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.protocol.BlockSizes;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capability;
import nbd.storage.Fua;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.ThreadModel;
import nbd.testing.FakeBackend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What the filters mean to each other, beside what the manual's tables say. */
@Timeout(30)
final class FilterStackTest {
  private static final FilterStack.Choice DEFAULT =
      new FilterStack.Choice(
          FuaMode.PASS,
          MultiConnSettings.DEFAULT,
          Optional.empty(),
          UnaryOperator.identity(),
          UnaryOperator.identity(),
          false);

  private static FilterStack.Choice cached(UnaryOperator<Backend> experiments, boolean ownNames) {
    return new FilterStack.Choice(
        FuaMode.PASS,
        MultiConnSettings.DEFAULT,
        Optional.of(new CacheSettings(CacheMode.WRITEBACK, 1 << 20, 4096)),
        experiments,
        UnaryOperator.identity(),
        ownNames);
  }

  private static FilterStack.Choice with(FuaMode fua, MultiConnMode mode) {
    return new FilterStack.Choice(
        fua,
        MultiConnSettings.DEFAULT.with(mode),
        Optional.empty(),
        DEFAULT.experiments(),
        DEFAULT.reconnection(),
        false);
  }

  private static FakeBackend without(Capability... missing) {
    var capabilities = FakeBackend.all().with(Fua.NONE);
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
    FilterStack stack = new FilterStack(new MemoryBackend(4096), DEFAULT);
    assertThat(stack.refusal("", false)).isEmpty();
    for (Statistics statistics : new Statistics[] {stack.clientSide(), stack.backendSide()}) {
      assertThat(Arrays.stream(Count.values()).mapToLong(statistics::get).sum()).isZero();
    }
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
  void clientsAreCountedBeforeAllFiltersAndTheStorageAfterThem() throws IOException {
    FilterStack stack =
        new FilterStack(
            without(Capability.MULTI_CONN), with(FuaMode.EMULATE, MultiConnMode.EMULATE));
    try (Handle handle = stack.backend().open("", false)) {
      handle.write(ByteBuffer.allocate(512), 0, CommandFlags.of(CommandFlag.FUA));
    }
    assertThat(stack.clientSide().get(Count.FUA)).isEqualTo(1);
    assertThat(stack.clientSide().get(Count.FLUSH)).isZero();
    assertThat(stack.backendSide().get(Count.FUA)).isZero();
    assertThat(stack.backendSide().get(Count.FLUSH)).isEqualTo(1);
    assertThat(stack.cacheCounts()).isEmpty();
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

  /** The cache has one connection to the storage, and gives it to any number of clients. */
  @Test
  void clientsOfACacheNeedNotComeOneAfterTheOther() throws IOException {
    UnaryOperator<Backend> oneByOne =
        backend -> new SerializeFilter(backend, ThreadModel.SERIALIZE_CONNECTIONS);
    FilterStack plain =
        new FilterStack(
            new MemoryBackend(1 << 20),
            new FilterStack.Choice(
                FuaMode.PASS,
                MultiConnSettings.DEFAULT,
                Optional.empty(),
                oneByOne,
                UnaryOperator.identity(),
                false));
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
