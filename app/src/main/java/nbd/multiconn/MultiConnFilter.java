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

  /**
   * Opens a handle, and enters it into its group.
   *
   * @throws nbd.protocol.NbdException also if the mode cannot be had with this handle; the message
   *     says why
   */
  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return openNext(
        exportName,
        readOnly,
        handle ->
            table.enter(
                handle, exportName, Decision.of(settings, handle.capabilities(), threadModel())));
  }

  /** The number of groups that are remembered, for tests. */
  int groups() {
    return table.size();
  }
}
