package nbd.rbd;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import org.junit.jupiter.api.Test;

final class LibRbdTest {
  @Test
  void aMissingLibraryIsNamedWithItsPackage() {
    assertThatThrownBy(() -> LibRbd.load("librbd.so.none", "librados.so.none"))
        .isInstanceOf(IOException.class)
        .hasMessage(
            "Ceph's library librbd.so.none is not installed: install Debian's package librbd1");
  }

  @Test
  void aLibraryWithoutTheFunctionsIsTooOld() {
    assertThatThrownBy(() -> LibRbd.load("libc.so.6", "libc.so.6"))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("libc.so.6 is older than version 16");
  }
}
