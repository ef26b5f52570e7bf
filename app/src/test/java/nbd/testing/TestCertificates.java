package nbd.testing;

import java.net.URISyntaxException;
import java.nio.file.Path;

/**
 * The certificates and keys of src/test/resources/tls, which the script {@code make} there made.
 */
public final class TestCertificates {
  /** An authority, a server and a client of it, and its list of revoked certificates. */
  public static final Path GOOD = of("good");

  /** A client whose certificate the authority has revoked. */
  public static final Path REVOKED = of("revoked");

  /** A client whose certificate has expired. */
  public static final Path EXPIRED = of("expired");

  /** Another authority, and a client of it. */
  public static final Path OTHER = of("other");

  /** A server whose certificate an intermediate authority has signed. */
  public static final Path CHAIN = of("chain");

  /** Keys of all kinds: NAME-key.pem, NAME-cert.pem. */
  public static final Path KEYS = of("keys");

  private TestCertificates() {}

  private static Path of(String name) {
    try {
      return Path.of(TestCertificates.class.getResource("/tls/" + name).toURI());
    } catch (URISyntaxException impossible) {
      throw new AssertionError(impossible);
    }
  }
}
