package nbd.tls;

import java.net.Socket;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import java.util.Optional;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.X509ExtendedTrustManager;

/**
 * A check of the peer's certificate that names no authorities to clients.
 *
 * <p>GnuTLS 3.7, and so libnbd and qemu, has only one certificate to choose from. Where a server
 * names authorities, it still asks whether the certificate's own signature is among the algorithms
 * for TLS 1.3 handshakes, as those of RSA authorities never are, and sends none.
 */
final class PeerVerifier extends X509ExtendedTrustManager {
  private final Optional<X509ExtendedTrustManager> verifier;

  /**
   * Makes a check.
   *
   * @param verifier of certificates; without one, every peer is accepted: the connection is secret,
   *     but the peer may be anybody
   */
  PeerVerifier(Optional<X509ExtendedTrustManager> verifier) {
    this.verifier = verifier;
  }

  @Override
  public X509Certificate[] getAcceptedIssuers() {
    return new X509Certificate[0];
  }

  @Override
  public void checkClientTrusted(X509Certificate[] chain, String authType, SSLEngine engine)
      throws CertificateException {
    if (verifier.isPresent()) {
      verifier.get().checkClientTrusted(chain, authType, engine);
    }
  }

  @Override
  public void checkServerTrusted(X509Certificate[] chain, String authType, SSLEngine engine)
      throws CertificateException {
    if (verifier.isPresent()) {
      verifier.get().checkServerTrusted(chain, authType, engine);
    }
  }

  @Override
  public void checkClientTrusted(X509Certificate[] chain, String authType, Socket socket) {
    throw new UnsupportedOperationException("for engines only");
  }

  @Override
  public void checkServerTrusted(X509Certificate[] chain, String authType, Socket socket) {
    throw new UnsupportedOperationException("for engines only");
  }

  @Override
  public void checkClientTrusted(X509Certificate[] chain, String authType) {
    throw new UnsupportedOperationException("for engines only");
  }

  @Override
  public void checkServerTrusted(X509Certificate[] chain, String authType) {
    throw new UnsupportedOperationException("for engines only");
  }
}
