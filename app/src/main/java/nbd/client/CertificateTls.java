package nbd.client;

import java.io.IOException;
import java.nio.channels.ByteChannel;
import nbd.client.Endpoint.Tcp;
import nbd.client.Endpoint.Unix;
import nbd.client.NbdUri.TlsParameters;
import nbd.tls.TlsClient;

/**
 * TLS with the certificates that the URI names, read anew for each connection, so that it does not
 * matter when they are exchanged. As in libnbd, the server's certificate has to name the URI's host
 * or its {@code tls-hostname}; over a Unix socket without that, any name is right.
 */
final class CertificateTls implements TlsUpgrade {
  @Override
  public ByteChannel upgrade(ByteChannel plain, NbdUri server) throws IOException {
    TlsParameters parameters = server.tlsParameters();
    String host =
        switch (server.endpoint()) {
          case Tcp tcp -> tcp.host();
          case Unix _ -> "";
        };
    return TlsClient.load(parameters.certificates(), parameters.verifyPeer().orElse(true))
        .client(plain, parameters.hostname().orElse(host));
  }
}
