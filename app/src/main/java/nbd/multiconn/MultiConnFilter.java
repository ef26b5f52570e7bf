package nbd.multiconn;

import java.io.IOException;
import java.util.concurrent.Executor;
import nbd.filter.FilterBackend;
import nbd.storage.Backend;
import nbd.storage.Handle;

/**
 * The filter that keeps the promise of multi-conn: a flush on one connection covers the completed
 * writes of all connections of its group. It shows the flag to the clients to whom that is
 * promised.
 *
 * <p>It calls {@code flush} of a handle on behalf of other connections, at any time between open
 * and close. A backend with a thread model other than {@link nbd.storage.ThreadModel#PARALLEL} has
 * to be wrapped in a {@link nbd.filter.SerializeFilter} below this filter, which keeps these calls
 * apart from the connection's own.
 */
public final class MultiConnFilter extends FilterBackend {
  private final MultiConnSettings settings;
  private final ConnectionTable table;

  /** Wraps a backend; flushes run at the same time on virtual threads. */
  public MultiConnFilter(Backend next, MultiConnSettings settings) {
    this(next, settings, Thread.ofVirtual().name("flush-", 0)::start);
  }

  /** Lets a test choose where flushes run. */
  MultiConnFilter(Backend next, MultiConnSettings settings, Executor executor) {
    super(next);
    this.settings = settings;
    this.table = new ConnectionTable(settings, executor);
  }

  /** Enters the handle into its group; refuses it if the mode cannot be had with it. */
  @Override
  protected Handle wrap(Handle handle, String exportName) throws IOException {
    return table.enter(
        handle, exportName, Decision.of(settings, handle.capabilities(), threadModel()));
  }

  /** The number of groups that are remembered, for tests. */
  int groups() {
    return table.size();
  }
}
