package nbd.upstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.function.UnaryOperator;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.Handle;

/**
 * All handles of an export share one handle of the backend below, a connection: so one flush covers
 * them all, each sees at once what another one wrote, and a server that takes a single client
 * serves many. When it breaks, it breaks for all of them, and the next handle begins with another.
 * Any thread may begin on the handles below and push.
 */
public final class SharingBackend extends FilterBackend {
  private final UnaryOperator<String> realName;
  private final SharedByName<Handle> connections =
      new SharedByName<>(handle -> handle.broken().isEmpty(), Handle::close);

  /**
   * Wraps a backend.
   *
   * @param realName what names of the same export have in common: they share a connection
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
    private final Capabilities capabilities;

    SharedHandle(SharedByName<Handle>.Lease lease, boolean readOnly) {
      super(lease.thing());
      this.lease = lease;
      Capabilities all = next.capabilities().with(Capability.MULTI_CONN);
      this.capabilities = readOnly ? all.readOnly() : all;
    }

    @Override
    public Capabilities capabilities() {
      return capabilities;
    }

    @Override
    public Object identity() {
      return next;
    }

    @Override
    public boolean beginRead(ByteBuffer into, long offset, Completion end) {
      return next.beginRead(into, offset, end);
    }

    @Override
    public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
      return next.beginWrite(from, offset, flags, end);
    }

    @Override
    public void close() throws IOException {
      lease.release();
    }
  }
}
