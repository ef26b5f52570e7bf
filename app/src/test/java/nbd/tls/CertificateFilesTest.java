package nbd.tls;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Optional;
import nbd.testing.TestCertificates;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Certificates and keys as openssl and certtool write them, and messages for unusable ones. */
final class CertificateFilesTest {
  @TempDir private Path directory;

  @BeforeEach
  void copyGoodOnes() throws IOException {
    try (var files = Files.list(TestCertificates.GOOD)) {
      for (Path file : files.toList()) {
        Files.copy(file, directory.resolve(file.getFileName()));
      }
    }
  }

  private void use(String key) throws IOException {
    for (String part : new String[] {"cert", "key"}) {
      Files.write(
          directory.resolve("server-" + part + ".pem"),
          Files.readAllBytes(TestCertificates.KEYS.resolve(key + "-" + part + ".pem")));
    }
  }

  private void change(String file, String old, String instead) throws IOException {
    Path path = directory.resolve(file);
    String text = Files.readString(path);
    assertThat(text).containsPattern(old);
    Files.writeString(path, text.replaceFirst(old, instead));
  }

  private void refused(boolean verifyPeer, String file, String... problem) {
    assertThatExceptionOfType(CertificateFileException.class)
        .isThrownBy(() -> TlsServer.load(directory, verifyPeer))
        .withMessageStartingWith(directory.resolve(file) + ": ")
        .withMessageContainingAll(problem);
  }

  @ParameterizedTest
  @ValueSource(strings = {"rsa-pkcs8", "rsa-pkcs1", "ec-pkcs8", "ec-sec1", "ed25519"})
  void aHandshakeSucceedsWithAKeyOfEachKind(String key) throws Exception {
    use(key);
    Files.copy(
        directory.resolve("server-cert.pem"),
        directory.resolve("ca-cert.pem"),
        java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    Files.delete(directory.resolve("ca-crl.pem"));
    try (Handshakes.Connected both =
        Handshakes.connect(
            TlsServer.load(directory, false),
            TlsClient.load(Optional.of(directory), true),
            "localhost")) {
      both.exchange();
    }
  }

  @Test
  void windowsLineEndsAndTextAroundTheBlocksAreIgnored() throws Exception {
    for (String file : new String[] {"server-cert.pem", "server-key.pem"}) {
      Path path = directory.resolve(file);
      String text = "Bag Attributes é\r\n" + Files.readString(path).replace("\n", "\r\n") + "end";
      Files.write(path, text.getBytes(java.nio.charset.StandardCharsets.ISO_8859_1));
    }
    TlsServer.load(directory, true).reload();
  }

  @ParameterizedTest
  @ValueSource(strings = {"encrypted-pkcs8", "encrypted-pkcs1"})
  void anEncryptedKeyIsRefusedWithTheCommandToDecryptIt(String key) throws Exception {
    use(key);
    refused(false, "server-key.pem", "encrypted", "openssl pkey");
  }

  @Test
  void aKeyOfAKindThatTlsDoesNotUseIsRefused() throws Exception {
    Files.copy(
        TestCertificates.KEYS.resolve("dsa-key.pem"),
        directory.resolve("server-key.pem"),
        java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    refused(false, "server-key.pem", "kind");
    change(
        "server-key.pem", "(?s)PRIVATE KEY-----\n(.*)PRIVATE", "X PRIVATE KEY-----\n$1X PRIVATE");
    refused(false, "server-key.pem", "\"X PRIVATE KEY\"");
  }

  @ParameterizedTest
  @ValueSource(strings = {"server-cert.pem", "server-key.pem", "ca-cert.pem"})
  void aMissingFileIsNamed(String file) throws Exception {
    Files.delete(directory.resolve(file));
    refused(true, file, "does not exist");
  }

  @ParameterizedTest
  @CsvSource({
    "server-cert.pem,no certificate",
    "server-key.pem,no private key",
    "ca-cert.pem,no certificate",
    "ca-crl.pem,no list of revoked"
  })
  void aFileWithoutItsContentIsNamed(String file, String problem) throws Exception {
    Files.writeString(directory.resolve(file), "nothing\n");
    refused(true, file, problem);
  }

  @ParameterizedTest
  @ValueSource(strings = {"server-cert.pem", "server-key.pem", "ca-cert.pem", "ca-crl.pem"})
  void aDamagedFileIsNamed(String file) throws Exception {
    Path path = directory.resolve(file);
    String whole = Files.readString(path);
    change(file, "-----END.*", "");
    refused(true, file, "does not end");
    Files.writeString(path, whole.replaceFirst("(?s)\n.*?\n(.*)-----END", "\n$1-----END"));
    refused(true, file, "");
    // Base64 comes in fours.
    Files.writeString(path, whole.replaceFirst("(?s)\n(.*?)\n.*-----END", "\nAAAAA\n-----END"));
    refused(true, file, "damaged");
    Files.writeString(path, whole.replaceFirst("(?s)\n(.*?)\n.*-----END", "\nMIIB\n-----END"));
    refused(true, file, "");
  }

  @Test
  void aFileWithoutPermissionIsNamed() throws Exception {
    Assumptions.assumeFalse(System.getProperty("user.name").equals("root"), "root may");
    Files.setPosixFilePermissions(
        directory.resolve("server-key.pem"), PosixFilePermissions.fromString("---------"));
    refused(false, "server-key.pem", "permission denied");
  }

  @Test
  void aKeyOfAnotherCertificateIsRefused() throws Exception {
    Files.copy(
        TestCertificates.GOOD.resolve("client-key.pem"),
        directory.resolve("server-key.pem"),
        java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    refused(false, "server-key.pem", "not the key", "server-cert.pem");
    use("rsa-pkcs1");
    Files.copy(
        TestCertificates.KEYS.resolve("ed25519-key.pem"),
        directory.resolve("server-key.pem"),
        java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    refused(false, "server-key.pem", "not the key");
  }

  @Test
  void aKeyThatNamesNoCurveIsRefused() throws Exception {
    // SEC1 without its optional parts: version 1 and a secret of 4 bytes.
    Files.writeString(
        directory.resolve("server-key.pem"),
        "-----BEGIN EC PRIVATE KEY-----\nMAkCAQEEBAECAwQ=\n-----END EC PRIVATE KEY-----\n");
    refused(false, "server-key.pem", "which curve");
  }

  @Test
  void aClientsDirectoryThatIsMissingIsNamed() {
    Path missing = directory.resolve("missing");
    assertThatThrownBy(() -> TlsClient.load(Optional.of(missing), true))
        .isInstanceOf(CertificateFileException.class)
        .hasMessageStartingWith(missing + ": ");
  }

  @ParameterizedTest
  @ValueSource(strings = {"client-cert.pem", "client-key.pem"})
  void halfAnIdentityOfAClientIsRefused(String file) throws Exception {
    Files.delete(directory.resolve(file));
    assertThatThrownBy(() -> TlsClient.load(Optional.of(directory), true))
        .isInstanceOf(CertificateFileException.class)
        .hasMessageContainingAll(file, "does not exist");
  }
}
