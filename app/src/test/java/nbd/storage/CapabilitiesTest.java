package nbd.storage;

import static org.assertj.core.api.Assertions.assertThat;

import nbd.testing.FakeBackend;
import org.junit.jupiter.api.Test;

/** Sets of capabilities that make sense, and their transmission flags. */
final class CapabilitiesTest {
  private static final Capabilities ALL = FakeBackend.all();

  @Test
  void withoutWritesNothingIsChanged() {
    assertThat(ALL.readOnly().set())
        .containsExactlyInAnyOrder(
            Capability.FLUSH,
            Capability.FUA,
            Capability.CACHE,
            Capability.EXTENTS,
            Capability.MULTI_CONN,
            Capability.ROTATIONAL);
    assertThat(ALL.without(Capability.ZERO).has(Capability.FAST_ZERO)).isFalse();
  }

  @Test
  void capabilitiesAreAddedAndTakenAway() {
    assertThat(ALL.without(Capability.FLUSH, Capability.FUA).with(Capability.FLUSH, Capability.FUA))
        .isEqualTo(ALL);
    assertThat(Capabilities.of(Capability.FLUSH).set()).containsExactly(Capability.FLUSH);
  }

  @Test
  void flagsTellWhatTheyWereMadeOf() {
    for (Capability missing : Capability.values()) {
      Capabilities can = ALL.without(missing, Capability.EXTENTS);
      assertThat(Capabilities.of(can.flags())).isEqualTo(can);
    }
  }
}
