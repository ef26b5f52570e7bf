package nbd.cli;

import java.nio.file.Path;
import java.util.Objects;
import java.util.Optional;
import nbd.client.NbdUri.TlsParameters;
import nbd.server.TlsPolicy;
import nbd.tls.CertificateFileException;
import nbd.tls.TlsServer;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** The options of serve for TLS. */
final class TlsOptions {
  @Option(
      names = "--tls",
      paramLabel = "MODE",
      description =
          "TLS for clients: one of ${COMPLETION-CANDIDATES} (default: on with"
              + " --tls-certificates, else off); with require, clients without TLS are refused. See"
              + " TLS in the manual page.")
  private @Nullable Mode mode;

  @Option(
      names = "--tls-certificates",
      paramLabel = "DIR",
      description =
          "Take server-cert.pem and server-key.pem from this directory, and ca-cert.pem and"
              + " ca-crl.pem for clients' certificates. They are read again on SIGHUP.")
  private @Nullable Path directory;

  @Option(
      names = "--tls-verify-peer",
      description = "Demand a certificate of every client that uses TLS, signed by ca-cert.pem.")
  private boolean verifyPeer;

  /** The use of TLS: not offered, offered, or demanded. */
  private enum Mode {
    OFF,
    ON,
    REQUIRE
  }

  /** Throws a {@link UsageException} if the options are wrong. */
  void check() {
    UsageException.refuseIf(
        directory == null && mode() != Mode.OFF, "--tls: needs --tls-certificates");
    UsageException.refuseIf(
        directory == null && verifyPeer, "--tls-verify-peer: needs --tls-certificates");
    UsageException.refuseIf(
        directory != null && mode() == Mode.OFF,
        "--tls-certificates: cannot be used with --tls=off");
  }

  private Mode mode() {
    return Objects.requireNonNullElse(mode, directory == null ? Mode.OFF : Mode.ON);
  }

  /**
   * Makes the URI of a listening socket one of TLS if clients have to use TLS.
   *
   * @param withCertificates whether the client finds its certificates in the server's directory
   */
  Listening announced(Listening made, boolean withCertificates) {
    if (mode() != Mode.REQUIRE) {
      return made;
    }
    Optional<Path> certificates =
        withCertificates ? Optional.ofNullable(directory) : Optional.empty();
    return made.withTls(
        new TlsParameters(
            certificates.map(Path::toAbsolutePath), Optional.empty(), Optional.empty()));
  }

  /**
   * Reads the certificates, after {@link #check}.
   *
   * @throws CertificateFileException with a message for the user
   */
  TlsPolicy policy() throws CertificateFileException {
    if (directory == null) {
      return TlsPolicy.OFF;
    }
    TlsServer server = TlsServer.load(directory, verifyPeer);
    return new TlsPolicy(Optional.of(server), mode() == Mode.REQUIRE);
  }
}
