package nbd.tls;

import java.io.IOException;
import java.nio.channels.ByteChannel;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.util.Optional;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLParameters;
import org.jspecify.annotations.Nullable;

/**
 * The client's side of TLS 1.2 and 1.3. The server's certificate is verified as libnbd does: it has
 * to be signed by a trusted authority, and to name the host, if there is one. Any thread may call.
 */
public final class TlsClient {
  private final SSLContext context;
  private final boolean verifyPeer;

  private TlsClient(SSLContext context, boolean verifyPeer) {
    this.context = context;
    this.verifyPeer = verifyPeer;
  }

  /**
   * Reads the certificates: ca-cert.pem, the authority (without it, the authorities that the JDK
   * trusts), ca-crl.pem, which revokes certificates, and client-cert.pem with client-key.pem, this
   * side's own.
   *
   * @param directory of the certificates, if there are any
   * @param verifyPeer whether the server's certificate is verified
   * @throws CertificateFileException if a file cannot be used
   */
  public static TlsClient load(Optional<Path> directory, boolean verifyPeer)
      throws CertificateFileException {
    SSLContext context =
        directory.isPresent()
            ? new CertificateDirectory(directory.get()).forClient(verifyPeer)
            : CertificateDirectory.none(verifyPeer);
    return new TlsClient(context, verifyPeer);
  }

  /**
   * Does the handshake. Waits for the server as long as the channel does.
   *
   * @param plain in blocking mode; used by the result only from now on
   * @param host that the server's certificate has to name, or its address; empty to accept every
   *     certificate that the authority signed, as over a Unix socket
   * @throws IOException if the server's certificate is not accepted, or the server leaves; the
   *     message is for the user
   */
  public TlsChannel client(ByteChannel plain, String host) throws IOException {
    SSLEngine engine =
        host.isEmpty() ? context.createSSLEngine() : context.createSSLEngine(host, -1);
    engine.setUseClientMode(true);
    SSLParameters parameters = engine.getSSLParameters();
    parameters.setProtocols(TlsChannel.VERSIONS);
    if (verifyPeer && !host.isEmpty()) {
      // The rules of HTTPS (RFC 2818) for which names a certificate is for.
      parameters.setEndpointIdentificationAlgorithm("HTTPS");
    }
    engine.setSSLParameters(parameters);
    try {
      return TlsChannel.handshake(plain, engine);
    } catch (SSLException disagreed) {
      throw new SSLException("the TLS handshake failed: " + reason(disagreed), disagreed);
    }
  }

  /** Finds the reason why a certificate is not accepted, which the JDK's message wraps. */
  private static @Nullable String reason(SSLException disagreed) {
    String reason = disagreed.getMessage();
    for (Throwable cause = disagreed; cause != null; cause = cause.getCause()) {
      if (cause instanceof GeneralSecurityException) {
        reason = cause.getMessage();
      }
    }
    return reason;
  }
}
