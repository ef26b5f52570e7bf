package nbd.cli;

import java.nio.file.Path;
import java.util.Optional;
import nbd.cli.ListenOptions.Listening;
import nbd.client.NbdUri.TlsParameters;
import nbd.server.TlsPolicy;
import nbd.tls.CertificateFileException;
import nbd.tls.TlsServer;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** Whether and how serve encrypts. */
final class TlsOptions {
  @Option(
      names = "--tls",
      paramLabel = "MODE",
      converter = Names.Tls.class,
      completionCandidates = Names.Tls.class,
      description =
          "TLS for clients: one of ${COMPLETION-CANDIDATES} (default: on with"
              + " --tls-certificates, else off); with require, clients without TLS are refused. See"
              + " TLS in the manual page.")
  private @Nullable TlsMode mode;

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

  /** Checks what the parser cannot; the message is for the user. */
  Optional<String> problem() {
    if (directory == null) {
      if (mode() != TlsMode.OFF) {
        return Optional.of("--tls: needs --tls-certificates");
      }
      return verifyPeer
          ? Optional.of("--tls-verify-peer: needs --tls-certificates")
          : Optional.empty();
    }
    return mode() == TlsMode.OFF
        ? Optional.of("--tls-certificates: cannot be used with --tls=off")
        : Optional.empty();
  }

  private TlsMode mode() {
    if (mode != null) {
      return mode;
    }
    return directory == null ? TlsMode.OFF : TlsMode.ON;
  }

  /**
   * Makes the URI of a listening socket one of TLS, where clients have to use it.
   *
   * @param withCertificates whether who gets the URI finds its certificates where the server does
   */
  Listening announced(Listening made, boolean withCertificates) {
    if (mode() != TlsMode.REQUIRE) {
      return made;
    }
    Optional<Path> certificates =
        withCertificates ? Optional.ofNullable(directory) : Optional.empty();
    return made.withTls(
        new TlsParameters(
            certificates.map(Path::toAbsolutePath), Optional.empty(), Optional.empty()));
  }

  /**
   * Reads the certificates; there is no {@link #problem}.
   *
   * @throws CertificateFileException with a message for the user
   */
  TlsPolicy policy() throws CertificateFileException {
    if (directory == null) {
      return TlsPolicy.OFF;
    }
    TlsServer server = TlsServer.load(directory, verifyPeer);
    return new TlsPolicy(Optional.of(server), mode() == TlsMode.REQUIRE);
  }
}
