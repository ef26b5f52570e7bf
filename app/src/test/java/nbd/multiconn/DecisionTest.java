package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import nbd.protocol.NbdException;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** What clients are shown, and when they are refused. */
class DecisionTest {
  @ParameterizedTest(name = "{0}, {1}, {2}, multi-conn {3}, one connection {4}: flag {5}")
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          AUTO    | WRITABLE  | PARALLEL               | false | false | true
          AUTO    | WRITABLE  | PARALLEL               | true  | false | true
          AUTO    | WRITABLE  | SERIALIZE_ALL_REQUESTS | false | false | true
          AUTO    | WRITABLE  | SERIALIZE_CONNECTIONS  | true  | false | false
          AUTO    | WRITABLE  | PARALLEL               | true  | true  | false
          AUTO    | READ_ONLY | PARALLEL               | false | false | true
          AUTO    | FLUSHLESS | PARALLEL               | false | false | false
          AUTO    | FLUSHLESS | PARALLEL               | true  | false | true
          EMULATE | WRITABLE  | PARALLEL               | false | false | true
          EMULATE | WRITABLE  | SERIALIZE_CONNECTIONS  | false | false | false
          EMULATE | WRITABLE  | PARALLEL               | false | true  | false
          EMULATE | READ_ONLY | PARALLEL               | false | false | true
          EMULATE | FLUSHLESS | PARALLEL               | false | false | true
          DISABLE | WRITABLE  | PARALLEL               | true  | false | false
          PLUGIN  | WRITABLE  | PARALLEL               | true  | false | true
          PLUGIN  | WRITABLE  | PARALLEL               | false | false | false
          PLUGIN  | WRITABLE  | SERIALIZE_CONNECTIONS  | true  | false | false
          PLUGIN  | WRITABLE  | PARALLEL               | true  | true  | false
          UNSAFE  | WRITABLE  | PARALLEL               | false | false | true
          UNSAFE  | WRITABLE  | SERIALIZE_CONNECTIONS  | false | false | false
          UNSAFE  | WRITABLE  | PARALLEL               | false | true  | false
          """)
  void theFlagIsShownWhereItIsPromised(
      MultiConnMode mode,
      String kind,
      ThreadModel model,
      boolean multiConn,
      boolean single,
      boolean shown)
      throws IOException {
    FakeBackend fake = new FakeBackend(capabilities(kind, multiConn));
    fake.threadModel = model;
    MultiConnFilter filter =
        new MultiConnFilter(
            fake, new MultiConnSettings(mode, TrackDirty.CONNECTION, false, single));

    Capabilities seen = filter.open("", false).capabilities();

    assertThat(seen.has(Capability.MULTI_CONN)).isEqualTo(shown);
    assertThat(seen.without(Capability.MULTI_CONN, Capability.FUA))
        .isEqualTo(fake.capabilities.without(Capability.MULTI_CONN, Capability.FUA));
  }

  private static Capabilities capabilities(String kind, boolean multiConn) {
    Capabilities capabilities =
        switch (kind) {
          case "READ_ONLY" -> FakeBackend.WRITABLE.readOnly();
          case "FLUSHLESS" -> FakeBackend.WRITABLE.readOnly().without(Capability.FLUSH);
          default -> FakeBackend.WRITABLE;
        };
    return multiConn ? capabilities.with(Capability.MULTI_CONN) : capabilities;
  }

  @ParameterizedTest
  @EnumSource(names = {"AUTO", "EMULATE"})
  void aClientIsRefusedWhereWritesCannotBeFlushed(MultiConnMode mode) {
    FakeBackend fake = new FakeBackend(FakeBackend.WRITABLE.without(Capability.FLUSH));
    MultiConnFilter filter =
        new MultiConnFilter(fake, new MultiConnSettings(mode, TrackDirty.CONNECTION, false, false));

    assertThatThrownBy(() -> filter.open("", false))
        .isInstanceOf(NbdException.class)
        .hasMessageContaining("no flush");
    assertThat(fake.handles).allMatch(handle -> handle.closed);
    assertThat(filter.groups()).isZero();
  }

  @ParameterizedTest
  @EnumSource(names = {"DISABLE", "PLUGIN", "UNSAFE"})
  void whereNothingIsEmulatedABackendWithoutFlushWillDo(MultiConnMode mode) throws IOException {
    Scene scene =
        Scene.of(FakeBackend.WRITABLE.without(Capability.FLUSH), mode, TrackDirty.CONNECTION, 2);
    scene.write(0);
    scene.read(1);
    scene.handle(0).close();
    scene.handle(1).close();
    assertThat(scene.fake.faults).isEmpty();
  }

  @Test
  void aBackendThatTakesOneConnectionAtATimeNeedsNoFlushInAutoMode() throws IOException {
    FakeBackend fake = new FakeBackend(FakeBackend.WRITABLE.without(Capability.FLUSH));
    fake.threadModel = ThreadModel.SERIALIZE_CONNECTIONS;
    assertThat(
            new MultiConnFilter(fake, MultiConnSettings.DEFAULT)
                .open("", false)
                .capabilities()
                .has(Capability.MULTI_CONN))
        .isFalse();
  }

  @Test
  void fuaIsEmulatedWhereFlushesAreReplicatedAndNowhereElse() throws IOException {
    assertThat(hasFua(FakeBackend.WRITABLE, MultiConnMode.EMULATE)).isFalse();
    assertThat(hasFua(FakeBackend.MULTI_CONN, MultiConnMode.AUTO)).isTrue();
    assertThat(hasFua(FakeBackend.WRITABLE, MultiConnMode.DISABLE)).isTrue();
  }

  private static boolean hasFua(Capabilities capabilities, MultiConnMode mode) throws IOException {
    Handle handle = Scene.of(capabilities, mode, TrackDirty.CONNECTION, 1).handle(0);
    return handle.capabilities().has(Capability.FUA);
  }
}
