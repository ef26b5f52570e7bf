package nbd.client;

import java.time.Duration;

/**
 * The timeouts of a client.
 *
 * @param connectTimeout for connecting and the handshake together
 * @param requestTimeout how long the server may be silent while a reply is due; zero for any time
 */
public record ClientSettings(Duration connectTimeout, Duration requestTimeout) {
  /** Ten seconds to connect, and a minute of silence. */
  public static final ClientSettings DEFAULT =
      new ClientSettings(Duration.ofSeconds(10), Duration.ofMinutes(1));

  /** Checks the timeouts. */
  public ClientSettings {
    if (!connectTimeout.isPositive()) {
      throw new IllegalArgumentException("connect timeout " + connectTimeout);
    }
    if (requestTimeout.isNegative()) {
      throw new IllegalArgumentException("request timeout " + requestTimeout);
    }
  }
}
