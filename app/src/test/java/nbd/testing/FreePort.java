package nbd.testing;

import java.io.IOException;
import java.net.BindException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.util.concurrent.ThreadLocalRandom;

/** A TCP port of 127.0.0.1 for a server that cannot choose one by itself. */
public final class FreePort {
  private static final int LEAST = 15_000;
  private static final int MOST = 30_000;

  private FreePort() {}

  /**
   * Finds a port that nobody uses, below those that Linux gives to clients and to servers that ask
   * for any: so hardly anybody takes it before the server does.
   */
  public static int find() throws IOException {
    while (true) {
      int port = ThreadLocalRandom.current().nextInt(LEAST, MOST);
      try (ServerSocket socket = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
        return socket.getLocalPort();
      } catch (BindException taken) {
        // Another one may be free.
      }
    }
  }
}
