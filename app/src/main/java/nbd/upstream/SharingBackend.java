package nbd.upstream;

import java.io.IOException;
import java.util.function.UnaryOperator;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.SharedByName;

/**
 * A backend in which all handles of an export share one handle of the backend below, a connection:
 * so one flush covers them all, each sees at once what another one wrote, and a server that takes a
 * single client serves many. When it breaks, it breaks for all of them, and the next handle begins
 * with another. Any thread may begin on the handles below and push.
 */
public final class SharingBackend extends FilterBackend {
  private final UnaryOperator<String> realName;
  private final SharedByName<Handle> connections =
      new SharedByName<>(handle -> handle.broken().isEmpty(), Handle::close);

  /**
   * Wraps a backend.
   *
   * @param realName maps names of the same export to one name: their clients share a connection
   */
  public SharingBackend(Backend next, UnaryOperator<String> realName) {
    super(next);
    this.realName = realName;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return new SharedHandle(
        connections.acquire(realName.apply(exportName), () -> next.open(exportName, false)),
        readOnly);
  }

  private static final class SharedHandle extends FilterHandle {
    private final SharedByName<Handle>.Lease lease;

    SharedHandle(SharedByName<Handle>.Lease lease, boolean readOnly) {
      super(lease.thing(), lease.thing().facts().shared(lease.thing(), readOnly));
      this.lease = lease;
    }

    @Override
    public boolean takesPipes() {
      return next.takesPipes();
    }

    @Override
    public void close() throws IOException {
      lease.release();
    }
  }
}
