package nbd.cli;

import java.time.Duration;
import java.util.List;
import java.util.function.Predicate;
import nbd.backend.Backend;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import nbd.client.UpstreamBackend;
import nbd.filter.ReconnectFilter;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** The options of serve for another NBD server as the backend. */
final class UpstreamOptions {
  private static final String DYNAMIC_EXPORT = "--dynamic-export";
  private static final String CONNECT_TIMEOUT = "--connect-timeout";
  private static final String REQUEST_TIMEOUT = "--request-timeout";
  private static final String RECONNECT = "--reconnect";
  private static final String RECONNECT_BUFFER = "--reconnect-buffer";

  @Option(
      names = DYNAMIC_EXPORT,
      description =
          "With another NBD server: pass the client's export name on to it, and its list of exports"
              + " to the client.")
  private boolean dynamicExport;

  @Option(
      names = CONNECT_TIMEOUT,
      paramLabel = "DURATION",
      defaultValue = "5s",
      converter = DurationConverter.class,
      description =
          "With another NBD server: how long connecting to it may take, its handshake included"
              + " (default: ${DEFAULT-VALUE}).")
  private Duration connectTimeout = Duration.ofSeconds(5);

  @Option(
      names = REQUEST_TIMEOUT,
      paramLabel = "DURATION",
      defaultValue = "60s",
      converter = DurationConverter.class,
      description =
          "With another NBD server: give a connection up on which an answer is due and nothing has"
              + " come for so long (default: ${DEFAULT-VALUE}; 0: never).")
  private Duration requestTimeout = Duration.ofSeconds(60);

  @Option(
      names = RECONNECT,
      paramLabel = "DURATION",
      defaultValue = "0",
      converter = DurationConverter.class,
      description =
          "With another NBD server: when a connection to it breaks, try for so long to connect"
              + " again and go on, unnoticed by the client (default: not at all).")
  private Duration reconnect = Duration.ZERO;

  @Option(
      names = RECONNECT_BUFFER,
      paramLabel = "SIZE",
      defaultValue = "16M",
      converter = Size.Converter.class,
      description =
          "With --reconnect: how much of what was written and not flushed each connection keeps, to"
              + " write it again; when that is full, it flushes (default: ${DEFAULT-VALUE}).")
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
          List.of(DYNAMIC_EXPORT, CONNECT_TIMEOUT, REQUEST_TIMEOUT, RECONNECT, RECONNECT_BUFFER),
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

  /** The backend with what makes it outlive its connections, if that is asked for. */
  Backend around(Backend upstream) {
    return reconnect.isZero()
        ? upstream
        : new ReconnectFilter(upstream, reconnect, reconnectBuffer);
  }
}
