package nbd.cli;

import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/** Writes NBD URIs (doc/uri.md of the NBD project). */
final class NbdUri {
  private NbdUri() {}

  /** A URI for an export on a TCP port; for a wildcard address, by the loopback address. */
  static String tcp(InetAddress host, int port, String exportName) {
    InetAddress reachable = host;
    if (host.isAnyLocalAddress()) {
      reachable = host instanceof Inet6Address ? inet6Loopback() : InetAddress.getLoopbackAddress();
    }
    String literal = reachable.getHostAddress();
    String authority = reachable instanceof Inet6Address ? "[" + literal + "]" : literal;
    return "nbd://" + authority + ":" + port + "/" + escape(exportName);
  }

  private static InetAddress inet6Loopback() {
    byte[] address = new byte[16];
    address[15] = 1;
    try {
      return InetAddress.getByAddress(address);
    } catch (java.net.UnknownHostException impossible) {
      throw new AssertionError(impossible);
    }
  }

  /** A URI for an export on a Unix socket. */
  static String unix(Path socket, String exportName) {
    String path = escape(socket.toAbsolutePath().toString()).replace("%2F", "/");
    return "nbd+unix:///" + escape(exportName) + "?socket=" + path;
  }

  private static String escape(String text) {
    return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
  }
}
