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

/** The capabilities that clients are shown, and the reasons to refuse clients. */
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
    Scene scene =
        Scene.of(
            capabilities(kind, multiConn),
            new MultiConnSettings(mode, TrackDirty.CONNECTION, false, single));
    scene.fake.threadModel(model);
    scene.open(1, "");

    Capabilities seen = scene.handle(0).capabilities();

    assertThat(seen.has(Capability.MULTI_CONN)).isEqualTo(shown);
    assertThat(seen.without(Capability.MULTI_CONN, Capability.FUA))
        .isEqualTo(scene.fake.capabilities().without(Capability.MULTI_CONN, Capability.FUA));
  }

  private static Capabilities capabilities(String kind, boolean multiConn) {
    Capabilities capabilities =
        switch (kind) {
          case "READ_ONLY" -> Scene.WRITABLE.readOnly();
          case "FLUSHLESS" -> Scene.WRITABLE.readOnly().without(Capability.FLUSH);
          default -> Scene.WRITABLE;
        };
    return multiConn ? capabilities.with(Capability.MULTI_CONN) : capabilities;
  }

  @ParameterizedTest
  @EnumSource(names = {"AUTO", "EMULATE"})
  void aClientIsRefusedWhereWritesCannotBeFlushed(MultiConnMode mode) {
    Scene scene =
        Scene.of(Scene.WRITABLE.without(Capability.FLUSH), MultiConnSettings.DEFAULT.with(mode));

    assertThatThrownBy(() -> scene.open(1, ""))
        .isInstanceOf(NbdException.class)
        .hasMessageContaining("no flush");
    assertThat(scene.fake.openHandles()).isZero();
    assertThat(scene.filter.groups()).isZero();
  }

  @ParameterizedTest
  @EnumSource(names = {"DISABLE", "PLUGIN", "UNSAFE"})
  void whereNothingIsEmulatedABackendWithoutFlushWillDo(MultiConnMode mode) throws IOException {
    Scene scene =
        Scene.of(Scene.WRITABLE.without(Capability.FLUSH), mode, TrackDirty.CONNECTION, 2);
    scene.write(0);
    scene.read(1);
    scene.close(0, 1);
    assertThat(scene.takeFlushed()).isEmpty();
  }

  @Test
  void aBackendThatTakesOneConnectionAtATimeNeedsNoFlushInAutoMode() throws IOException {
    Scene scene = Scene.of(Scene.WRITABLE.without(Capability.FLUSH), MultiConnSettings.DEFAULT);
    scene.fake.threadModel(ThreadModel.SERIALIZE_CONNECTIONS);
    scene.open(1, "");
    assertThat(scene.handle(0).capabilities().has(Capability.MULTI_CONN)).isFalse();
  }

  @Test
  void fuaIsEmulatedWhereFlushesAreReplicatedAndNowhereElse() throws IOException {
    assertThat(hasFua(Scene.WRITABLE, MultiConnMode.EMULATE)).isFalse();
    assertThat(hasFua(Scene.MULTI_CONN, MultiConnMode.AUTO)).isTrue();
    assertThat(hasFua(Scene.WRITABLE, MultiConnMode.DISABLE)).isTrue();
  }

  private static boolean hasFua(Capabilities capabilities, MultiConnMode mode) throws IOException {
    Handle handle = Scene.of(capabilities, mode, TrackDirty.CONNECTION, 1).handle(0);
    return handle.capabilities().has(Capability.FUA);
  }
}
