package nbd.cli;

import java.time.Duration;
import java.util.List;
import java.util.function.Predicate;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import nbd.storage.Backend;
import nbd.upstream.ReconnectingBackend;
import nbd.upstream.SharingBackend;
import nbd.upstream.UpstreamBackend;
import picocli.CommandLine.Option;

/** The options of serve for another NBD server as the backend. */
final class UpstreamOptions {
  private static final String CONNECT_TIMEOUT = "--connect-timeout";
  private static final String RECONNECT = "--reconnect";
  private static final String RECONNECT_BUFFER = "--reconnect-buffer";

  @Option(
      names = "--dynamic-export",
      description =
          "Pass the client's export name on to it, and its list of exports to the client.")
  private boolean dynamicExport;

  @Option(
      names = "--share-connection",
      description =
          "Let all clients of an export share one connection to it, so that one flush covers all of"
              + " them and each sees what the others write at once. With --reconnect this is the"
              + " default unless that server offers multi-conn.")
  private boolean shareConnection;

  @Option(
      names = CONNECT_TIMEOUT,
      paramLabel = "DURATION",
      defaultValue = "5s",
      description =
          "Give up connecting to it after this long, from looking up its name to the end of the"
              + " handshake (default: ${DEFAULT-VALUE}).")
  private Duration connectTimeout = Duration.ofSeconds(5);

  @Option(
      names = "--request-timeout",
      paramLabel = "DURATION",
      defaultValue = "60s",
      description =
          "Close a connection when a reply is due and nothing has arrived for this long"
              + " (default: ${DEFAULT-VALUE}; 0: never).")
  private Duration requestTimeout = Duration.ofSeconds(60);

  @Option(
      names = RECONNECT,
      paramLabel = "DURATION",
      defaultValue = "0",
      description =
          "When a connection to it breaks, try for this long to connect again, and repeat the"
              + " writes that were answered and not flushed; clients wait meanwhile (default: not"
              + " at all).")
  private Duration reconnect = Duration.ZERO;

  @Option(
      names = RECONNECT_BUFFER,
      paramLabel = "SIZE",
      defaultValue = "16M",
      description =
          "With --reconnect: memory for an export's writes that are answered and not flushed, to"
              + " repeat them; when it is full, the export is flushed (default:"
              + " ${DEFAULT-VALUE}).")
  private long reconnectBuffer = 16L << 20;

  /** Throws a {@link UsageException} if the options are wrong. */
  void check(Predicate<String> isGiven) {
    UsageException.refuseIf(connectTimeout.isZero(), CONNECT_TIMEOUT + ": has to be longer than 0");
    if (reconnect.isZero()) {
      UsageException.refuse(List.of(RECONNECT_BUFFER), isGiven, "only with " + RECONNECT);
    }
  }

  /** True if the client's export name is the upstream's. */
  boolean dynamicExport() {
    return dynamicExport;
  }

  /** Makes the backend of a URI. */
  UpstreamBackend open(NbdUri uri) {
    return new UpstreamBackend(
        uri, dynamicExport, new ClientSettings(connectTimeout, requestTimeout));
  }

  /** Adds the sharing of connections and reconnecting, as the options say. */
  Backend around(Backend upstream) {
    if (!reconnect.isZero()) {
      return new ReconnectingBackend(
          upstream, this::realName, reconnect, reconnectBuffer, shareConnection);
    }
    return shareConnection ? new SharingBackend(upstream, this::realName) : upstream;
  }

  /** Maps all the names by which clients know one export of the other server to one name. */
  private String realName(String exportName) {
    return dynamicExport ? exportName : "";
  }
}
