package nbd.filter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.testing.FakeBackend;
import nbd.testing.FakeBackend.Call;
import nbd.testing.HookedBackend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** The FUA that each mode offers to clients, and the requests that reach the storage. */
final class FuaFilterTest {
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);
  private static final CommandFlags NO_HOLE = CommandFlags.of(CommandFlag.NO_HOLE);
  private static final Call FLUSH = Call.of(Command.FLUSH, 0, 0);

  /** The capabilities of the storage. */
  enum Storage {
    /** FUA and flush. */
    BOTH,
    /** Flush and no FUA. */
    FLUSH,
    /** FUA and no flush. */
    FUA,
    /** Neither. */
    NOTHING;

    Capabilities capabilities() {
      Capabilities all = FakeBackend.all();
      return switch (this) {
        case BOTH -> all;
        case FLUSH -> all.without(Capability.FUA);
        case FUA -> all.without(Capability.FLUSH);
        case NOTHING -> all.without(Capability.FLUSH, Capability.FUA);
      };
    }

    FakeBackend open() {
      return new FakeBackend(1000, BlockSizes.DEFAULT, capabilities());
    }
  }

  /**
   * The columns: the capabilities that clients are offered; then the calls that reach the storage
   * for a write with FUA (if that is offered), for one without, and for a flush (if that is
   * offered). W is a write, W! one with FUA, F a flush.
   */
  @ParameterizedTest(name = "--fua={0}, storage has {1}")
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          NONE    | BOTH        | flush     |    | W  | F
          NONE    | FLUSH       | flush     |    | W  | F
          NONE    | FUA         |           |    | W  |
          NONE    | NOTHING     |           |    | W  |
          EMULATE | BOTH        | fua flush | WF | W  | F
          EMULATE | FLUSH       | fua flush | WF | W  | F
          EMULATE | FUA         | refused   |    |    |
          EMULATE | NOTHING     | refused   |    |    |
          NATIVE  | BOTH        | fua flush | W! | W  | F
          NATIVE  | FLUSH       | fua flush | WF | W  | F
          NATIVE  | FUA         | fua       | W! | W  |
          NATIVE  | NOTHING     | refused   |    |    |
          FORCE   | BOTH        | fua flush | W! | W! |
          FORCE   | FLUSH       | fua flush | WF | WF |
          FORCE   | FUA         | fua flush | W! | W! |
          FORCE   | NOTHING     | refused   |    |    |
          PASS    | BOTH        | fua flush | W! | W  | F
          PASS    | FLUSH       | fua flush | WF | W  | F
          PASS    | FUA         | fua       | W! | W  |
          PASS    | NOTHING     |           |    | W  |
          DISCARD | BOTH        | fua flush | W  | W  |
          DISCARD | FLUSH       | fua flush | W  | W  |
          DISCARD | FUA         | fua flush | W  | W  |
          DISCARD | NOTHING     | fua flush | W  | W  |
          """)
  void eachModeOffersAndPassesOnWhatItSays(
      FuaMode mode, Storage storage, String offered, String withFua, String without, String flush)
      throws IOException {
    FakeBackend fake = storage.open();
    FuaFilter filter = new FuaFilter(fake, mode);
    if ("refused".equals(offered)) {
      assertThatThrownBy(() -> filter.open("", false))
          .isInstanceOf(NbdException.class)
          .hasMessageContaining("--fua=pass");
      assertThat(filter.open("", true).capabilities().has(Capability.WRITE))
          .as("who only reads needs no FUA")
          .isFalse();
      return;
    }
    try (Handle handle = filter.open("", false)) {
      Capabilities shown = handle.capabilities();
      assertThat(shown.has(Capability.FUA))
          .as("FUA is offered")
          .isEqualTo(offered != null && offered.contains("fua"));
      assertThat(shown.has(Capability.FLUSH))
          .as("flush is offered")
          .isEqualTo(offered != null && offered.contains("flush"));
      assertThat(shown.without(Capability.FLUSH, Capability.FUA))
          .isEqualTo(storage.capabilities().without(Capability.FLUSH, Capability.FUA));
      if (shown.has(Capability.FUA)) {
        assertChanges(fake, handle, FUA, withFua);
      }
      assertChanges(fake, handle, CommandFlags.NONE, without);
      if (shown.has(Capability.FLUSH)) {
        int before = fake.calls().size();
        handle.flush();
        assertThat(fake.calls().subList(before, fake.calls().size()))
            .isEqualTo("F".equals(flush) ? List.of(FLUSH) : List.of());
      }
    }
  }

  /** Trims and zeroes are treated as writes are, and keep their other flags. */
  private static void assertChanges(
      FakeBackend fake, Handle handle, CommandFlags flags, String pattern) throws IOException {
    int before = fake.calls().size();
    handle.write(ByteBuffer.allocate(3), 1, flags);
    handle.trim(2, 3, flags);
    handle.zero(4, 5, flags.with(CommandFlag.NO_HOLE));
    CommandFlags passed = pattern.contains("!") ? FUA : CommandFlags.NONE;
    List<Call> expected = new ArrayList<>();
    for (Call call :
        List.of(
            new Call(Command.WRITE, 1, 3, passed),
            new Call(Command.TRIM, 2, 3, passed),
            new Call(
                Command.WRITE_ZEROES, 4, 5, CommandFlags.of(passed.bits() | NO_HOLE.bits())))) {
      expected.add(call);
      if (pattern.endsWith("F")) {
        expected.add(FLUSH);
      }
    }
    assertThat(fake.calls().subList(before, fake.calls().size())).isEqualTo(expected);
  }

  @Test
  void aFuaWhoseFlushFailsFails() throws IOException {
    FakeBackend fake =
        Storage.FLUSH
            .open()
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
        Storage.FLUSH
            .open()
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
  void aClientThatIsRefusedLeavesNoHandleOpen() {
    AtomicInteger open = new AtomicInteger();
    Backend counting =
        new FilterBackend(Storage.NOTHING.open()) {
          @Override
          public Handle open(String name, boolean readOnly) throws IOException {
            open.incrementAndGet();
            return new FilterHandle(next.open(name, readOnly)) {
              @Override
              public void close() throws IOException {
                open.decrementAndGet();
                super.close();
              }
            };
          }
        };
    assertThatThrownBy(() -> new FuaFilter(counting, FuaMode.FORCE).open("", false))
        .hasMessageContaining("neither FUA nor flush");
    assertThat(open).hasValue(0);
  }

  @Test
  void aForcedWriteThatNeedsAFlushIsNotMadeAtOnce() throws IOException {
    FakeBackend storage = Storage.FLUSH.open().quick(operation -> true);
    try (Handle forced = new FuaFilter(storage, FuaMode.FORCE).open("", false);
        Handle passing = new FuaFilter(storage, FuaMode.PASS).open("", false)) {
      ByteBuffer data = ByteBuffer.allocate(7);
      assertThat(forced.tryNow(Operation.write(data, 0, CommandFlags.NONE))).isFalse();
      assertThat(data.remaining()).isEqualTo(7);
      assertThat(passing.tryNow(Operation.write(data, 0, CommandFlags.NONE))).isTrue();
      assertThat(forced.tryNow(Operation.read(ByteBuffer.allocate(7), 0))).isTrue();
    }
  }

  @ParameterizedTest
  @EnumSource(FuaMode.class)
  void aWriteThatIsBegunIsTreatedAsOneThatIsMade(FuaMode mode) throws IOException {
    for (Storage storage : List.of(Storage.BOTH, Storage.FLUSH)) {
      for (CommandFlags flags : List.of(CommandFlags.NONE, FUA)) {
        List<CommandFlags> begun = new ArrayList<>();
        FakeBackend fake = storage.open();
        Handle handle = new FuaFilter(beginning(fake, begun), mode).open("", false);
        if (flags.equals(FUA) && !handle.capabilities().has(Capability.FUA)) {
          continue;
        }
        boolean accepted =
            handle.begin(
                Operation.write(ByteBuffer.allocate(3), 1, flags), failure -> begun.add(flags));
        handle.write(ByteBuffer.allocate(3), 1, flags);
        List<Call> made = fake.calls();
        if (made.contains(FLUSH)) {
          assertThat(accepted).as("one that a flush has to follow waits").isFalse();
          assertThat(begun).isEmpty();
        } else {
          assertThat(accepted).isTrue();
          assertThat(begun).containsExactly(made.getFirst().flags(), flags);
        }
      }
    }
  }

  /** Takes note of the flags with which writes are begun, and ends them at once. */
  private static Backend beginning(Backend backend, List<CommandFlags> begun) {
    return new HookedBackend(
        backend,
        (next, operation, patience, end) -> {
          if (patience != Patience.LATER) {
            return next.perform(operation, patience, end);
          }
          begun.add(operation.flags());
          end.done(null);
          return Outcome.BEGUN;
        });
  }

  @Test
  void storageThatNeedsNothingIsUsedAsItIs() throws IOException {
    FakeBackend fake = Storage.BOTH.open();
    Handle direct = fake.open("", false);
    assertThat(new FuaFilter(fake, FuaMode.PASS).open("", false).getClass())
        .isEqualTo(direct.getClass());
  }
}
