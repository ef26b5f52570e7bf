package nbd.server;

import java.util.Optional;
import nbd.tls.TlsServer;

/**
 * The use of TLS by clients.
 *
 * @param server negotiates TLS; empty if it is not offered
 * @param required whether clients without TLS are refused
 */
public record TlsPolicy(Optional<TlsServer> server, boolean required) {
  /** No TLS. */
  public static final TlsPolicy OFF = new TlsPolicy(Optional.empty(), false);

  /** Checks that TLS is offered where it is required. */
  public TlsPolicy {
    if (required && server.isEmpty()) {
      throw new IllegalArgumentException("TLS is required but not offered");
    }
  }
}
