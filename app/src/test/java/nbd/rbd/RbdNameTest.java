package nbd.rbd;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class RbdNameTest {
  @Test
  void allPartsAreFound() {
    RbdName name = RbdName.parse("pool/space/image@new?since=old");
    assertThat(name)
        .isEqualTo(
            new RbdName(
                "pool", "space", Optional.of("image"), Optional.of("new"), Optional.of("old")));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"pool", "pool/image", "pool/space/image", "p/i@s", "p/n/i@s", "p/i@s?since=r"})
  void aNameIsWrittenAsItIsRead(String text) {
    assertThat(RbdName.parse(text)).hasToString("rbd:" + text);
  }

  @ParameterizedTest
  @CsvSource({
    "'', is not of the form",
    "a/b/c/d, is not of the form",
    "/image, name of the pool is missing",
    "pool/, name of the image is missing",
    "pool//image, name of the namespace is missing",
    "pool/@s, name of the image is missing",
    "pool/image@, name of the snapshot is missing",
    "pool/image@s?since=, name of the snapshot behind since= is missing",
    "pool/image@s?after=r, is unknown",
    "pool/image?since=r, needs IMAGE@SNAPSHOT",
    "pool?since=r, needs IMAGE@SNAPSHOT",
  })
  void whatIsWrongIsSaid(String text, String message) {
    assertThatThrownBy(() -> RbdName.parse(text))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining(message);
  }

  @Test
  void anImageOfAPoolMayHaveASnapshot() {
    assertThat(RbdName.parse("pool").withImage("image@snapshot"))
        .isEqualTo(RbdName.parse("pool/image@snapshot"));
  }
}
