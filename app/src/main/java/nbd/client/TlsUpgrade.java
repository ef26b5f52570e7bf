package nbd.client;

import java.io.IOException;
import java.nio.channels.ByteChannel;

/** How a connection continues inside TLS once the server has agreed to STARTTLS. */
@FunctionalInterface
public interface TlsUpgrade {
  /** With the certificates that the URI names. */
  TlsUpgrade CERTIFICATES = new CertificateTls();

  /** For who has no TLS: refuses. */
  TlsUpgrade NONE =
      (plain, server) -> {
        throw new IOException("TLS is not configured");
      };

  /**
   * Does the TLS handshake as the client.
   *
   * @param plain in blocking mode; from now on it is used through the result only, but may be
   *     closed at any time, by which every call of the result that waits has to fail
   * @param server whom to expect: its endpoint and the parameters of TLS
   * @return what the connection continues on: one thread may read while another writes; closing it
   *     says goodbye as TLS has it, and closes the plain channel. One that is a {@link
   *     java.nio.channels.GatheringByteChannel} is given several buffers at a time.
   * @throws IOException if the peer is not who it should be; the message is for the user
   */
  ByteChannel upgrade(ByteChannel plain, NbdUri server) throws IOException;
}
