package nbd.server;

import java.util.Optional;
import nbd.tls.TlsServer;

/**
 * Whether clients may, or have to, continue inside TLS.
 *
 * @param server what does it; empty if they may not
 * @param required whether they have to
 */
public record TlsPolicy(Optional<TlsServer> server, boolean required) {
  /** No TLS. */
  public static final TlsPolicy OFF = new TlsPolicy(Optional.empty(), false);

  /** Checks that what is required is possible. */
  public TlsPolicy {
    if (required && server.isEmpty()) {
      throw new IllegalArgumentException("TLS is required, and there is none");
    }
  }
}
