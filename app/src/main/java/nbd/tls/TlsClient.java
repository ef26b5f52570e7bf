package nbd.tls;

import java.io.IOException;
import java.nio.channels.ByteChannel;
import java.nio.file.Path;
import java.util.Optional;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLParameters;

/**
 * The client's side of TLS 1.2 and 1.3. The server's certificate is verified as libnbd does: it has
 * to be signed by an authority that is trusted, and to be for the host, where there is one. Any
 * thread may call anything at any time.
 */
public final class TlsClient {
  private final SSLContext context;
  private final boolean verifyPeer;
  private final RecordBuffers buffers = new RecordBuffers();

  private TlsClient(SSLContext context, boolean verifyPeer) {
    this.context = context;
    this.verifyPeer = verifyPeer;
  }

  /**
   * Reads the certificates: ca-cert.pem, the authority (without it, those that the JDK trusts);
   * ca-crl.pem, which revokes; client-cert.pem and client-key.pem, who this is.
   *
   * @param directory where they are, if there are any
   * @param verifyPeer whether the server has to prove who it is
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
   * Does the handshake; blocks as long as the channel does.
   *
   * @param plain in blocking mode; used through the result only, from now on
   * @param host whose certificate the server has to show, a name or an address; empty for any that
   *     the authority signed, as over a Unix socket
   * @throws IOException if the server is not who it has to be, or leaves; the message is for the
   *     user
   */
  public ByteChannel client(ByteChannel plain, String host) throws IOException {
    SSLEngine engine =
        host.isEmpty() ? context.createSSLEngine() : context.createSSLEngine(host, -1);
    engine.setUseClientMode(true);
    SSLParameters parameters = engine.getSSLParameters();
    parameters.setProtocols(Versions.ENABLED);
    if (verifyPeer && !host.isEmpty()) {
      // The rules of HTTPS (RFC 2818) for which names a certificate is for.
      parameters.setEndpointIdentificationAlgorithm("HTTPS");
    }
    engine.setSSLParameters(parameters);
    try {
      return TlsChannel.handshake(plain, engine, buffers);
    } catch (SSLException disagreed) {
      throw new SSLException("the TLS handshake failed: " + disagreed.getMessage(), disagreed);
    }
  }
}
