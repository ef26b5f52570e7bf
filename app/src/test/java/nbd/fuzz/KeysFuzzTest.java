package nbd.fuzz;

import com.code_intelligence.jazzer.junit.FuzzTest;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;
import nbd.testing.TestCertificates;
import nbd.tls.FuzzedKeys;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;

/** Any file of keys and certificates: it is read, or refused by its name. */
final class KeysFuzzTest {
  private static final String[] LABELS = {"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"};
  private static final String[] FILES = {
    "server-key.pem", "server-cert.pem", "ca-cert.pem", "ca-crl.pem"
  };

  private static Path directory;

  @BeforeAll
  static void copyGoodOnes() throws IOException {
    directory = Files.createTempDirectory("nbd-test-");
    for (String file : FILES) {
      Files.copy(TestCertificates.GOOD.resolve(file), directory.resolve(file));
    }
  }

  @AfterAll
  static void remove() throws IOException {
    try (Stream<Path> files = Files.list(directory)) {
      for (Path file : files.toList()) {
        Files.delete(file);
      }
    }
    Files.delete(directory);
  }

  @FuzzTest
  void anyBytesAreAKeyOrRefused(byte[] data) {
    Choices choices = new Choices(data);
    FuzzedKeys.read(LABELS[choices.u8() % LABELS.length], choices.rest());
  }

  @FuzzTest
  void anyFileIsReadOrRefusedByName(byte[] data) throws IOException {
    Choices choices = new Choices(data);
    String name = FILES[choices.u8() % FILES.length];
    Path file = directory.resolve(name);
    Files.write(file, choices.rest());
    try {
      FuzzedKeys.load(directory, file);
    } finally {
      Files.write(file, Files.readAllBytes(TestCertificates.GOOD.resolve(name)));
    }
  }
}
