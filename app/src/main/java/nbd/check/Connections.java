package nbd.check;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;
import nbd.client.NbdClient;
import nbd.storage.Capability;

/** The connections on which scripts run: a new one each time, or one that has been flushed. */
final class Connections implements AutoCloseable {
  /** Limit on the time for which the server may be silent while an answer is due. */
  private static final Duration PATIENCE = Duration.ofSeconds(2);

  private final Target target;
  private final Optional<Restart> restart;
  private final boolean areKept;
  private final Deque<NbdClient> kept = new ArrayDeque<>();

  /**
   * Begins without connections.
   *
   * @param restart how to restart the server, if it may be
   * @param areKept whether a script may run on a connection of an earlier one
   */
  Connections(Target target, Optional<Restart> restart, boolean areKept) {
    this.target = target;
    this.restart = restart;
    this.areKept = areKept;
  }

  NbdClient take() throws IOException {
    while (!kept.isEmpty()) {
      NbdClient client = kept.remove();
      if (client.broken().isEmpty()) {
        return client;
      }
      client.close();
    }
    return connect();
  }

  NbdClient connect() throws IOException {
    return limited(target.connect());
  }

  /** Restarts the server. Connections to it end. */
  void restart() throws IOException {
    close();
    restart.orElseThrow(() -> new IOException("the server may not be restarted")).run();
  }

  /** Connects after a restart, as soon as the server can be reached. */
  NbdClient connectAgain() throws IOException {
    try {
      return limited(target.connect(() -> true));
    } catch (IOException down) {
      throw Restart.failed(down);
    }
  }

  private static NbdClient limited(NbdClient client) {
    client.limitPatience(PATIENCE);
    return client;
  }

  void giveBack(NbdClient client) {
    if (areKept && client.capabilities().has(Capability.FLUSH) && isFlushed(client)) {
      kept.add(client);
    } else {
      client.close();
    }
  }

  private static boolean isFlushed(NbdClient client) {
    try {
      client.flush();
      return true;
    } catch (IOException broken) {
      return false;
    }
  }

  @Override
  public void close() {
    kept.forEach(NbdClient::close);
    kept.clear();
  }
}
