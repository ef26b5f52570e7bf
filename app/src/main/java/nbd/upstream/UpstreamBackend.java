package nbd.upstream;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import nbd.client.ClientSettings;
import nbd.client.ConnectAttempts;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.ListedExport;
import nbd.storage.ThreadModel;

/**
 * A backend that is another NBD server: each handle is a connection to it, made when it is opened.
 * Handles of this backend may be begun on and pushed by any thread.
 */
public final class UpstreamBackend implements Backend {
  /** The time for which a server that owes an answer may be silent when this one stops. */
  private static final Duration LAST_PATIENCE = Duration.ofSeconds(8);

  private final NbdUri uri;
  private final boolean dynamic;
  private final ClientSettings settings;
  private final ConnectAttempts attempts = new ConnectAttempts();
  private final Set<NbdClient> open = ConcurrentHashMap.newKeySet();
  private volatile boolean stopping;

  /**
   * Describes the server; nothing is connected yet.
   *
   * @param uri where it is, and the export that is opened
   * @param dynamic whether the export's name is the one that a handle is opened by instead
   */
  public UpstreamBackend(NbdUri uri, boolean dynamic, ClientSettings settings) {
    this.uri = uri;
    this.dynamic = dynamic;
    this.settings = settings;
  }

  @Override
  public String name() {
    return uri.toString();
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Optional<List<ListedExport>> exports() throws IOException {
    return dynamic ? Optional.of(NbdClient.list(uri, settings, attempts)) : Optional.empty();
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    String name = dynamic ? exportName : uri.exportName();
    NbdClient client = NbdClient.connect(uri, name, settings, attempts);
    open.add(client);
    if (stopping) {
      client.limitPatience(LAST_PATIENCE);
    }
    return new UpstreamHandle(client, readOnly, () -> open.remove(client));
  }

  @Override
  public void stopWaiting() {
    stopping = true;
    attempts.stop();
    open.forEach(client -> client.limitPatience(LAST_PATIENCE));
  }

  @Override
  public void close() {
    // Each handle's connection is its own.
  }
}
