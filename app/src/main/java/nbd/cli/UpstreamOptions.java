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
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** The options of serve for another NBD server as the backend. */
final class UpstreamOptions {
  private static final String DYNAMIC_EXPORT = "--dynamic-export";
  private static final String SHARE_CONNECTION = "--share-connection";
  private static final String CONNECT_TIMEOUT = "--connect-timeout";
  private static final String REQUEST_TIMEOUT = "--request-timeout";
  private static final String RECONNECT = "--reconnect";
  private static final String RECONNECT_BUFFER = "--reconnect-buffer";

  @Option(
      names = DYNAMIC_EXPORT,
      description =
          "Pass the client's export name on to it, and its list of exports" + " to the client.")
  private boolean dynamicExport;

  @Option(
      names = SHARE_CONNECTION,
      description =
          "Let all clients of an export share one connection to it, so"
              + " that one flush covers all of them and each sees what the others write at once."
              + " With --reconnect this is so unless that server offers multi-conn.")
  private boolean shareConnection;

  @Option(
      names = CONNECT_TIMEOUT,
      paramLabel = "DURATION",
      defaultValue = "5s",
      converter = DurationConverter.class,
      description =
          "Give up connecting to it after this long, from looking up its name"
              + " to the end of the handshake (default: ${DEFAULT-VALUE}).")
  private Duration connectTimeout = Duration.ofSeconds(5);

  @Option(
      names = REQUEST_TIMEOUT,
      paramLabel = "DURATION",
      defaultValue = "60s",
      converter = DurationConverter.class,
      description =
          "Close a connection when a reply is due and nothing has arrived for this long"
              + " (default: ${DEFAULT-VALUE}; 0: never).")
  private Duration requestTimeout = Duration.ofSeconds(60);

  @Option(
      names = RECONNECT,
      paramLabel = "DURATION",
      defaultValue = "0",
      converter = DurationConverter.class,
      description =
          "When a connection to it breaks, try for this long to connect again,"
              + " and repeat the writes that were answered and not flushed; clients wait meanwhile"
              + " (default: not at all).")
  private Duration reconnect = Duration.ZERO;

  @Option(
      names = RECONNECT_BUFFER,
      paramLabel = "SIZE",
      defaultValue = "16M",
      converter = Size.Converter.class,
      description =
          "With --reconnect: memory for the writes of all clients of an export that are answered"
              + " and not flushed, kept to be made again; when it is full, the export is flushed"
              + " (default: ${DEFAULT-VALUE}).")
  private long reconnectBuffer = 16L << 20;

  /**
   * What is wrong with the options; null if nothing is.
   *
   * @param isUpstream whether the backend is another NBD server
   * @param given whether the user gave an option
   */
  @Nullable String problem(boolean isUpstream, Predicate<String> given) {
    if (!isUpstream) {
      return BackendArgument.onlyFor(
          "another NBD server",
          List.of(
              DYNAMIC_EXPORT,
              SHARE_CONNECTION,
              CONNECT_TIMEOUT,
              REQUEST_TIMEOUT,
              RECONNECT,
              RECONNECT_BUFFER),
          given);
    }
    if (connectTimeout.isZero()) {
      return CONNECT_TIMEOUT + ": has to be longer than 0";
    }
    return reconnect.isZero() && given.test(RECONNECT_BUFFER)
        ? RECONNECT_BUFFER + ": only with " + RECONNECT
        : null;
  }

  /** Whether the client's export name is the upstream's. */
  boolean dynamicExport() {
    return dynamicExport;
  }

  /** The backend that a URI names. */
  UpstreamBackend open(NbdUri uri) {
    return new UpstreamBackend(
        uri, dynamicExport, ClientSettings.DEFAULT.withTimeouts(connectTimeout, requestTimeout));
  }

  /** The backend with what lets clients share connections, or outlive them, if that is wanted. */
  Backend around(Backend upstream) {
    if (!reconnect.isZero()) {
      return new ReconnectingBackend(
          upstream, this::realName, reconnect, reconnectBuffer, shareConnection);
    }
    return shareConnection ? new SharingBackend(upstream, this::realName) : upstream;
  }

  /** What the client's names of one and the same export of the other server have in common. */
  private String realName(String exportName) {
    return dynamicExport ? exportName : "";
  }
}
