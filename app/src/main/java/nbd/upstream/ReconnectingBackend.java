package nbd.upstream;

import java.io.IOException;
import java.time.Duration;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.UnaryOperator;
import nbd.filter.FilterBackend;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.SharedByName;

/**
 * A backend whose handles outlive the connections to a server: all clients of an export share a
 * {@link Session}. The handles of the backend below are the connections; any thread may begin on
 * them and push.
 */
public final class ReconnectingBackend extends FilterBackend {
  private final UnaryOperator<String> realName;
  private final Session.Settings settings;
  private final SharedByName<Session> sessions;
  private final Queue<String> lossesAtStop = new ConcurrentLinkedQueue<>();
  private volatile boolean stopping;

  /**
   * Wraps a backend whose handles may break.
   *
   * @param realName maps names of the same export to one name: their clients share a session
   * @param within the time for which it tries to open a handle again
   * @param logBytes the bytes of answered and unflushed writes that are kept for an export; when
   *     there are more, it is flushed
   * @param share whether all clients of an export share one connection even if they need not
   */
  public ReconnectingBackend(
      Backend next, UnaryOperator<String> realName, Duration within, long logBytes, boolean share) {
    super(next);
    this.realName = realName;
    this.settings = new Session.Settings(within, logBytes, share, lossesAtStop::add);
    this.sessions = new SharedByName<>(session -> session.lost().isEmpty(), Session::end);
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    String real = realName.apply(exportName);
    while (true) {
      SharedByName<Session>.Lease lease = sessions.acquire(real, () -> session(exportName, real));
      boolean joined = false;
      try {
        if (stopping) {
          // It may have been made while the others were told.
          lease.thing().stopWaiting();
        }
        SessionHandle handle = new SessionHandle(lease, lease.thing().join(), readOnly);
        joined = true;
        return handle;
      } catch (LostException lost) {
        if (stopping) {
          throw lost;
        }
      } finally {
        if (!joined) {
          lease.release();
        }
      }
    }
  }

  private Session session(String exportName, String real) throws IOException {
    return Session.open(
        real.isEmpty() ? name() : "%s (export \"%s\")".formatted(name(), real),
        () -> next.open(exportName, false),
        settings);
  }

  @Override
  public void stopWaiting() {
    stopping = true;
    next.stopWaiting();
    sessions.all().forEach(Session::stopWaiting);
  }

  /**
   * Closes the backend below.
   *
   * @throws IOException also if something that was answered is lost since the server stops
   */
  @Override
  public void close() throws IOException {
    sessions.all().forEach(Session::abandon);
    try (Backend _ = next) {
      if (!lossesAtStop.isEmpty()) {
        throw new IOException(
            "answered and not flushed, and lost: " + String.join("; ", lossesAtStop));
      }
    }
  }
}
