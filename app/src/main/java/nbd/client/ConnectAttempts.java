package nbd.client;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/** The attempts to connect that are under way, so that all of them can be ended. */
public final class ConnectAttempts {
  private static final String STOPPED = "this server stops";

  private final Set<ConnectDeadline> attempts = ConcurrentHashMap.newKeySet();
  private volatile boolean stopped;

  /** Begins without any. */
  public ConnectAttempts() {}

  /** Ends the attempts that are under way, and all later ones when they begin. Does not wait. */
  public void stop() {
    stopped = true;
    attempts.forEach(attempt -> attempt.end(STOPPED));
  }

  /** Adds an attempt. It looks at {@code stopped} afterwards, so that {@link #stop} misses none. */
  void add(ConnectDeadline attempt) {
    attempts.add(attempt);
    if (stopped) {
      attempt.end(STOPPED);
    }
  }

  void remove(ConnectDeadline attempt) {
    attempts.remove(attempt);
  }
}
