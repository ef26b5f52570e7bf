package nbd.tls;

import java.io.IOException;
import java.nio.channels.ByteChannel;
import java.nio.file.Path;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;

/**
 * The server's side of TLS 1.2 and 1.3, with the certificates of a directory. Any thread may call.
 */
public final class TlsServer {
  private final CertificateDirectory directory;
  private final boolean verifyPeer;

  /** Replaced by {@link #reload}; a connection keeps the context that it began with. */
  private volatile SSLContext context;

  private TlsServer(CertificateDirectory directory, boolean verifyPeer)
      throws CertificateFileException {
    this.directory = directory;
    this.verifyPeer = verifyPeer;
    this.context = directory.forServer(verifyPeer);
  }

  /**
   * Reads server-cert.pem and server-key.pem.
   *
   * @param verifyPeer whether clients need a certificate that ca-cert.pem signed, and that
   *     ca-crl.pem, if it is there, does not revoke
   * @throws CertificateFileException if a file is missing or cannot be used
   */
  public static TlsServer load(Path directory, boolean verifyPeer) throws CertificateFileException {
    return new TlsServer(new CertificateDirectory(directory), verifyPeer);
  }

  /**
   * Reads the files again, for connections that begin from now on.
   *
   * @throws CertificateFileException if one is missing or cannot be used; the old ones stay
   */
  public void reload() throws CertificateFileException {
    context = directory.forServer(verifyPeer);
  }

  /**
   * Does the handshake. Waits for the client as long as the channel does.
   *
   * @param plain in blocking mode; used by the result only from now on
   * @throws javax.net.ssl.SSLException if the two cannot agree, or the client leaves
   */
  public TlsChannel accept(ByteChannel plain) throws IOException {
    SSLEngine engine = context.createSSLEngine();
    engine.setUseClientMode(false);
    engine.setEnabledProtocols(TlsChannel.VERSIONS);
    engine.setNeedClientAuth(verifyPeer);
    return TlsChannel.handshake(plain, engine);
  }
}
