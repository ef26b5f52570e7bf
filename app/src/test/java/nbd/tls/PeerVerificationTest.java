package nbd.tls;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import javax.net.ssl.SSLException;
import nbd.testing.TestCertificates;
import nbd.tls.Handshakes.Connected;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Accepted and refused certificates. */
@Timeout(300)
final class PeerVerificationTest {
  private static final String UNTRUSTED =
      "the TLS handshake failed: unable to find valid certification path";

  private static TlsServer server(boolean verifyPeer) throws Exception {
    return TlsServer.load(TestCertificates.GOOD, verifyPeer);
  }

  private static TlsClient client(Path directory) throws Exception {
    return TlsClient.load(Optional.of(directory), true);
  }

  private static void works(TlsServer server, TlsClient client, String host) throws Exception {
    try (Connected both = Handshakes.connect(server, client, host)) {
      both.exchange();
    }
  }

  private static void refused(TlsServer server, TlsClient client, String host, String... why) {
    assertThatThrownBy(() -> works(server, client, host))
        .isInstanceOf(SSLException.class)
        .satisfies(
            failure -> {
              String all = failure.getMessage() + failure.getSuppressed()[0].getMessage();
              assertThat(all).contains(why);
            });
  }

  @ParameterizedTest
  @ValueSource(strings = {"localhost", "127.0.0.1", "::1", ""})
  void aServerIsAcceptedAsAHostOfItsCertificateAndWithoutAHost(String host) throws Exception {
    works(server(false), client(TestCertificates.GOOD), host);
    works(TlsServer.load(TestCertificates.CHAIN, false), client(TestCertificates.EXPIRED), host);
  }

  @ParameterizedTest
  @ValueSource(strings = {"example.com", "127.0.0.2", "server"})
  void aServerIsNotAcceptedAsAnotherHost(String host) throws Exception {
    refused(server(false), client(TestCertificates.GOOD), host, host.equals("server") ? "" : host);
    works(server(false), TlsClient.load(Optional.of(TestCertificates.GOOD), false), host);
  }

  @Test
  void aServerOfAnotherAuthorityIsRefusedAndLearnsWhy() throws Exception {
    refused(
        server(false),
        client(TestCertificates.OTHER),
        "localhost",
        "Received fatal alert: ",
        UNTRUSTED);
    refused(server(false), TlsClient.load(Optional.empty(), true), "localhost", UNTRUSTED);
    works(server(false), TlsClient.load(Optional.empty(), false), "localhost");
  }

  @Test
  void withoutAnAuthorityInItsDirectoryAClientTrustsTheAuthoritiesOfTheJdk(@TempDir Path empty)
      throws Exception {
    refused(server(false), client(empty), "localhost", UNTRUSTED);
  }

  @Test
  void aServerThatVerifiesAcceptsItsAuthoritysClientsOnly() throws Exception {
    works(server(true), client(TestCertificates.GOOD), "localhost");
    clientRefused(TestCertificates.OTHER, "");
    clientRefused(TestCertificates.REVOKED, "revoked");
    clientRefused(TestCertificates.EXPIRED, "NotAfter");
    assertThatThrownBy(
            () -> works(server(true), TlsClient.load(Optional.empty(), false), "localhost"))
        .isInstanceOf(SSLException.class)
        .hasMessageContaining("Empty client certificate chain");
  }

  /**
   * Checks that the server refuses a client. With TLS 1.3 the client has ended its handshake
   * before.
   */
  private static void clientRefused(Path certificates, String why) throws Exception {
    TlsClient client = TlsClient.load(Optional.of(certificates), false);
    assertThatThrownBy(() -> works(server(true), client, "localhost"))
        .isInstanceOf(SSLException.class)
        .hasMessageContaining(why);
  }

  @Test
  void aServerThatDoesNotVerifyAcceptsAnyClient() throws Exception {
    for (Path certificates :
        new Path[] {TestCertificates.REVOKED, TestCertificates.EXPIRED, TestCertificates.GOOD}) {
      works(server(false), client(certificates), "localhost");
    }
  }

  @Test
  void reloadedCertificatesCountForLaterConnections(@TempDir Path directory) throws Exception {
    copy(TestCertificates.GOOD, directory);
    TlsServer server = TlsServer.load(directory, true);
    TlsClient revoked = TlsClient.load(Optional.of(TestCertificates.REVOKED), true);
    Path list = directory.resolve("ca-crl.pem");
    Files.delete(list);
    server.reload();
    try (Connected before = Handshakes.connect(server, revoked, "localhost")) {
      Files.copy(TestCertificates.GOOD.resolve("ca-crl.pem"), list);
      server.reload();
      assertThatThrownBy(() -> works(server, revoked, "localhost"))
          .isInstanceOf(SSLException.class)
          .hasStackTraceContaining("revoked");
      before.exchange();
    }
  }

  @Test
  void certificatesThatCannotBeReloadedStay(@TempDir Path directory) throws Exception {
    copy(TestCertificates.GOOD, directory);
    TlsServer server = TlsServer.load(directory, true);
    Files.writeString(directory.resolve("server-cert.pem"), "half");
    assertThatThrownBy(server::reload)
        .isInstanceOf(CertificateFileException.class)
        .hasMessageContaining("server-cert.pem");
    works(server, client(TestCertificates.GOOD), "localhost");
  }

  private static void copy(Path from, Path to) throws Exception {
    try (var files = Files.list(from)) {
      for (Path file : files.toList()) {
        Files.copy(file, to.resolve(file.getFileName()));
      }
    }
  }
}
