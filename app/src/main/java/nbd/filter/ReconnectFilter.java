package nbd.filter;

import java.io.IOException;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.locks.ReentrantLock;
import nbd.backend.Backend;
import nbd.backend.Handle;

/**
 * Opens a handle of the backend below again when it has broken, so that a connection does not
 * notice that the storage was away for a while.
 */
public final class ReconnectFilter extends FilterBackend {
  private final Duration within;
  private final long bytes;

  /** Guards the exports. Invariant: those that have a handle are there. */
  private final ReentrantLock lock = new ReentrantLock();

  private final Map<String, Export> exports = new HashMap<>();

  /** What the handles of one export share. */
  private static final class Export {
    final KeptWrites kept = new KeptWrites();
    int handles;
  }

  /**
   * Wraps a backend whose handles may break.
   *
   * @param within how long to try to open a handle again
   * @param bytes how much each handle keeps of what was written and not flushed; when that is full,
   *     it flushes
   */
  public ReconnectFilter(Backend next, Duration within, long bytes) {
    super(next);
    this.within = within;
    this.bytes = bytes;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    Handle first = next.open(exportName, readOnly);
    return new ReconnectHandle(
        name(),
        first,
        () -> next.open(exportName, readOnly),
        within,
        enter(exportName),
        bytes,
        () -> leave(exportName));
  }

  private KeptWrites enter(String exportName) {
    lock.lock();
    try {
      Export export = exports.computeIfAbsent(exportName, name -> new Export());
      export.handles++;
      return export.kept;
    } finally {
      lock.unlock();
    }
  }

  private void leave(String exportName) {
    lock.lock();
    try {
      Export export = exports.get(exportName);
      if (export != null && --export.handles == 0) {
        exports.remove(exportName);
      }
    } finally {
      lock.unlock();
    }
  }
}
