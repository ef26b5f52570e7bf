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
 * Where an NBD server is and which export of it: an NBD URI (uri.md of the NBD project).
 *
 * @param endpoint where the server listens
 * @param tls whether to insist on TLS
 * @param exportName may be empty
 * @param tlsParameters how TLS is done, as far as the URI says
 */
public record NbdUri(
    Endpoint endpoint, boolean tls, String exportName, TlsParameters tlsParameters) {

  /**
   * What a URI says of TLS.
   *
   * @param certificates the directory of the certificates
   * @param hostname whom the server's certificate has to name, if not the host
   * @param verifyPeer whether the server's certificate is checked
   */
  public record TlsParameters(
      Optional<Path> certificates, Optional<String> hostname, Optional<Boolean> verifyPeer) {
    /** Nothing is said. */
    public static final TlsParameters NONE =
        new TlsParameters(Optional.empty(), Optional.empty(), Optional.empty());
  }

  /** Whether a text begins as an NBD URI does. */
  public static boolean isUri(String text) {
    return UriParser.isUri(text);
  }

  /**
   * Reads one.
   *
   * @throws IllegalArgumentException if it is none, or asks for what there is not; the message is
   *     for the user
   */
  public static NbdUri parse(String text) {
    return new UriParser(text).parse();
  }

  /** An export on a TCP port of this machine; for a wildcard address, by the loopback address. */
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

  /** An export on a Unix socket. */
  public static NbdUri unix(Path socket, String exportName) {
    return new NbdUri(new Unix(socket.toAbsolutePath()), false, exportName, TlsParameters.NONE);
  }

  /** Another export of the same server. */
  public NbdUri withExportName(String name) {
    return new NbdUri(endpoint, tls, name, tlsParameters);
  }

  /** The same export, for who has to use TLS. */
  public NbdUri withTls(TlsParameters parameters) {
    return new NbdUri(endpoint, true, exportName, parameters);
  }

  /** The URI, with everything escaped that is not plain. */
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
