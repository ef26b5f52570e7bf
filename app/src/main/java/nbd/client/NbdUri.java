package nbd.client;

import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.URLEncoder;
import java.net.UnknownHostException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Optional;
import nbd.client.Endpoint.Tcp;
import nbd.client.Endpoint.Unix;

/**
 * An NBD URI (uri.md of the NBD project), which names a server and one of its exports.
 *
 * @param endpoint where the server listens
 * @param tls whether to insist on TLS
 * @param exportName may be empty
 * @param tlsParameters the URI's parameters for TLS
 */
public record NbdUri(
    Endpoint endpoint, boolean tls, String exportName, TlsParameters tlsParameters) {

  /**
   * The parameters for TLS.
   *
   * @param certificates the directory of the certificates
   * @param hostname that the server's certificate has to name instead of the host
   * @param verifyPeer whether the server's certificate is verified
   */
  public record TlsParameters(
      Optional<Path> certificates, Optional<String> hostname, Optional<Boolean> verifyPeer) {
    /** No parameters. */
    public static final TlsParameters NONE =
        new TlsParameters(Optional.empty(), Optional.empty(), Optional.empty());
  }

  /** Says whether a text begins as an NBD URI does. */
  public static boolean isUri(String text) {
    return UriParser.isUri(text);
  }

  /**
   * Parses a URI.
   *
   * @throws IllegalArgumentException if it is none, or needs what is not supported; the message is
   *     for the user
   */
  public static NbdUri parse(String text) {
    return new UriParser(text).parse();
  }

  /** Names an export on a TCP port of this machine, by the loopback address for a wildcard. */
  public static NbdUri tcp(InetAddress host, int port, String exportName) {
    InetAddress reachable = host;
    if (host.isAnyLocalAddress()) {
      reachable = host instanceof Inet6Address ? inet6Loopback() : InetAddress.getLoopbackAddress();
    }
    Tcp endpoint = new Tcp(reachable.getHostAddress(), port);
    return new NbdUri(endpoint, false, exportName, TlsParameters.NONE);
  }

  private static InetAddress inet6Loopback() {
    byte[] address = new byte[16];
    address[15] = 1;
    try {
      return InetAddress.getByAddress(address);
    } catch (UnknownHostException impossible) {
      throw new AssertionError(impossible);
    }
  }

  /** Names an export on a Unix socket. */
  public static NbdUri unix(Path socket, String exportName) {
    return new NbdUri(new Unix(socket.toAbsolutePath()), false, exportName, TlsParameters.NONE);
  }

  /** Names another export of the same server. */
  public NbdUri withExportName(String name) {
    return new NbdUri(endpoint, tls, name, tlsParameters);
  }

  /** Names the same export, with TLS. */
  public NbdUri withTls(TlsParameters parameters) {
    return new NbdUri(endpoint, true, exportName, parameters);
  }

  /** Writes the URI, with everything escaped that is not plain. */
  @Override
  public String toString() {
    StringBuilder query = new StringBuilder();
    String scheme = tls ? "nbds" : "nbd";
    String authority =
        switch (endpoint) {
          case Tcp(String host, int port) -> literal(host) + ":" + port;
          case Unix(Path path) -> {
            scheme += "+unix";
            append(query, "socket", escapePath(path));
            yield "";
          }
        };
    tlsParameters
        .certificates()
        .ifPresent(path -> append(query, UriParser.TLS_CERTIFICATES, escapePath(path)));
    tlsParameters.hostname().ifPresent(name -> append(query, UriParser.TLS_HOSTNAME, escape(name)));
    tlsParameters
        .verifyPeer()
        .ifPresent(verify -> append(query, UriParser.TLS_VERIFY_PEER, verify.toString()));
    return scheme + "://" + authority + "/" + escape(exportName) + query;
  }

  private static void append(StringBuilder query, String name, String escaped) {
    query.append(query.isEmpty() ? '?' : '&').append(name).append('=').append(escaped);
  }

  private static String literal(String host) {
    return host.indexOf(':') < 0
        ? escape(host)
        : "[" + host.toLowerCase(Locale.ROOT).replace("%", "%25") + "]";
  }

  private static String escapePath(Path path) {
    return escape(path.toString()).replace("%2F", "/");
  }

  private static String escape(String text) {
    return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
  }
}
