package nbd.fuzz;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import com.code_intelligence.jazzer.junit.FuzzTest;
import nbd.client.NbdUri;

/** Any text as an NBD URI: one that can be written and read again, or refused with a reason. */
final class UriFuzzTest {
  @FuzzTest
  void anyTextIsAUriOrRefused(byte[] data) {
    NbdUri uri;
    try {
      uri = NbdUri.parse(new String(data, UTF_8));
    } catch (IllegalArgumentException refused) {
      // The message is for the user, not one of the JDK.
      assertThat(refused).isExactlyInstanceOf(IllegalArgumentException.class);
      assertThat(refused.getMessage()).startsWith("\"");
      return;
    }
    NbdUri again = NbdUri.parse(uri.toString());
    assertThat(again.toString()).isEqualTo(uri.toString());
    assertThat(again.exportName()).isEqualTo(uri.exportName());
    assertThat(again.tlsParameters()).isEqualTo(uri.tlsParameters());
    assertThat(again.endpoint().toString()).isEqualToIgnoringCase(uri.endpoint().toString());
  }
}
