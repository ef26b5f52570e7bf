package nbd.client;

import java.nio.file.Path;

/** The address on which a server listens. */
public sealed interface Endpoint {
  /** The port that NBD is registered for. */
  int DEFAULT_PORT = 10809;

  /**
   * A TCP port.
   *
   * @param host a name, or an address without brackets
   * @param port from 1 to 65535
   */
  record Tcp(String host, int port) implements Endpoint {
    /** Checks the bounds. */
    public Tcp {
      if (host.isEmpty() || port < 1 || port > 65_535) {
        throw new IllegalArgumentException("no TCP port: \"" + host + "\" port " + port);
      }
    }
  }

  /**
   * A Unix socket.
   *
   * @param path of the socket
   */
  record Unix(Path path) implements Endpoint {}
}
