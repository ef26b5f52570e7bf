package nbd.client;

import java.time.Duration;

/**
 * How a client connects and waits.
 *
 * @param connectTimeout for connecting and the handshake together
 * @param requestTimeout how long the server may be silent while it owes an answer; zero for any
 *     time
 * @param structuredReplies whether to ask for structured replies, without which there are no
 *     extents
 * @param extendedHeaders whether to ask for extended headers first, which include structured
 *     replies
 * @param tls how to continue inside TLS
 */
public record ClientSettings(
    Duration connectTimeout,
    Duration requestTimeout,
    boolean structuredReplies,
    boolean extendedHeaders,
    TlsUpgrade tls) {
  /** Ten seconds to connect, a minute of silence, everything asked for, the URI's certificates. */
  public static final ClientSettings DEFAULT =
      new ClientSettings(
          Duration.ofSeconds(10), Duration.ofMinutes(1), true, true, TlsUpgrade.CERTIFICATES);

  /** Checks the timeouts. */
  public ClientSettings {
    if (!connectTimeout.isPositive()) {
      throw new IllegalArgumentException("connect timeout " + connectTimeout);
    }
    if (requestTimeout.isNegative()) {
      throw new IllegalArgumentException("request timeout " + requestTimeout);
    }
  }

  /** The same with other timeouts. */
  public ClientSettings withTimeouts(Duration connect, Duration request) {
    return new ClientSettings(connect, request, structuredReplies, extendedHeaders, tls);
  }

  /** The same with or without structured replies; without them, without extended headers, too. */
  public ClientSettings withStructuredReplies(boolean ask) {
    return new ClientSettings(connectTimeout, requestTimeout, ask, ask && extendedHeaders, tls);
  }

  /** The same with this TLS. */
  public ClientSettings withTls(TlsUpgrade upgrade) {
    return new ClientSettings(
        connectTimeout, requestTimeout, structuredReplies, extendedHeaders, upgrade);
  }
}
