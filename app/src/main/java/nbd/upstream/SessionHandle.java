package nbd.upstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import nbd.protocol.BlockSizes;
import nbd.protocol.CommandFlags;
import nbd.storage.Capabilities;
import nbd.storage.Completion;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.upstream.Connections.Client;
import nbd.upstream.RangeLocks.Range;
import nbd.upstream.Requests.Call;
import nbd.upstream.WriteLog.Kind;
import org.jspecify.annotations.Nullable;

/** One client's part in a {@link Session}. */
final class SessionHandle implements Handle {
  private static final ByteBuffer NO_DATA = ByteBuffer.allocate(0);

  private final Session session;
  private final Client client;
  private final SharedByName<Session>.Lease lease;
  private final Capabilities capabilities;

  /** Where something was begun and not pushed; used by the thread that begins. */
  private @Nullable Handle begunOn;

  SessionHandle(SharedByName<Session>.Lease lease, Client client, boolean readOnly) {
    this.lease = lease;
    this.session = lease.thing();
    this.client = client;
    Capabilities all = session.capabilities();
    this.capabilities = readOnly ? all.readOnly() : all;
  }

  @Override
  public long size() {
    return session.size();
  }

  @Override
  public BlockSizes blockSizes() {
    return session.blockSizes();
  }

  @Override
  public String description() {
    return session.description();
  }

  @Override
  public Capabilities capabilities() {
    return capabilities;
  }

  @Override
  public Object identity() {
    return session;
  }

  @Override
  public Optional<String> broken() {
    return session.lost();
  }

  @Override
  public void read(ByteBuffer into, long offset) throws IOException {
    int start = into.position();
    session.requests.run(client, handle -> handle.read(into.position(start), offset));
  }

  @Override
  public boolean beginRead(ByteBuffer into, long offset, Completion end) {
    return noteBegun(
        session.requests.begin(
            client,
            (handle, done) -> handle.beginRead(into, offset, done),
            handle -> handle.read(into.duplicate(), offset),
            end));
  }

  @Override
  public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
    return noteBegun(
        session.changes.beginWrite(
            client,
            new Range(offset, offset + from.remaining()),
            from,
            flags,
            (handle, done) -> handle.beginWrite(from, offset, flags, done),
            handle -> handle.write(from.duplicate(), offset, flags),
            end));
  }

  private boolean noteBegun(@Nullable Handle on) {
    if (on == null) {
      return false;
    }
    if (!on.equals(begunOn)) {
      push();
      begunOn = on;
    }
    return true;
  }

  @Override
  public void push() {
    Handle on = begunOn;
    if (on != null) {
      begunOn = null;
      on.push();
    }
  }

  @Override
  public void cache(long offset, long length) throws IOException {
    session.requests.run(client, handle -> handle.cache(offset, length));
  }

  @Override
  public List<Extent> extents(long offset, long length, int most) throws IOException {
    List<Extent> found = new ArrayList<>();
    session.requests.run(client, handle -> found.addAll(handle.extents(offset, length, most)));
    return found;
  }

  @Override
  public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    session.changes.change(
        client,
        Kind.WRITE,
        new Range(offset, offset + from.remaining()),
        from,
        flags,
        handle -> handle.write(from.duplicate(), offset, flags));
    from.position(from.limit());
  }

  @Override
  public void zero(long offset, long length, CommandFlags flags) throws IOException {
    change(Kind.ZERO, offset, length, flags, handle -> handle.zero(offset, length, flags));
  }

  @Override
  public void trim(long offset, long length, CommandFlags flags) throws IOException {
    change(Kind.TRIM, offset, length, flags, handle -> handle.trim(offset, length, flags));
  }

  private void change(Kind kind, long offset, long length, CommandFlags flags, Call making)
      throws IOException {
    session.changes.change(
        client, kind, new Range(offset, offset + length), NO_DATA, flags, making);
  }

  @Override
  public void flush() throws IOException {
    session.changes.flush(client);
  }

  @Override
  public void close() throws IOException {
    session.leave(client);
    lease.release();
  }
}
