package nbd.tls;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.security.PrivateKey;
import java.util.List;

/** The readers of keys and certificates, on any bytes. */
public final class FuzzedKeys {
  private static final Path NAME = Path.of("key.pem");

  private FuzzedKeys() {}

  /** Reads a private key of a kind, which is one, or refused by name. */
  public static void read(String label, byte... der) {
    try {
      PemFile file = new PemFile(NAME, List.of(new PemFile.Block(label, false, der)));
      PrivateKey key = PrivateKeys.in(file);
      assertThat(key.getFormat()).isEqualTo("PKCS#8");
    } catch (CertificateFileException refused) {
      assertThat(refused.getMessage()).startsWith(NAME + ": ");
    }
  }

  /** Reads a server's directory, which is usable, or a file in it is refused by name. */
  public static void load(Path directory, Path fuzzed) {
    try {
      assertThat(TlsServer.load(directory, true)).isNotNull();
    } catch (CertificateFileException refused) {
      assertThat(refused.getMessage()).startsWith(directory.toString());
    }
    try {
      PemFile.read(fuzzed).blocks().forEach(block -> assertThat(block.label()).isNotEmpty());
    } catch (CertificateFileException refused) {
      assertThat(refused.getMessage()).startsWith(fuzzed + ": ");
    }
  }
}
