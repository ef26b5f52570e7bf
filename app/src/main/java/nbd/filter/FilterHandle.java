package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;
import nbd.protocol.BlockSizes;
import nbd.protocol.CommandFlags;
import nbd.storage.Capabilities;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.ReadTarget;

/**
 * A handle that passes every call on to the next one; filters override what they change. All of
 * {@code read}, {@code readNow} and {@code transferNow} are reads, and {@code write}, {@code
 * writeNow} are writes: a filter that changes one has to change the others. {@code beginRead} and
 * {@code beginWrite} decline unless overridden, because a filter must see the completion too. FUA
 * is not quick unless overridden, because many filters wait for more than the next handle does.
 */
public abstract class FilterHandle implements Handle {
  /** The handle below. */
  protected final Handle next;

  /** Wraps the next handle, and closes it when it is closed. */
  protected FilterHandle(Handle next) {
    this.next = next;
  }

  @Override
  public long size() {
    return next.size();
  }

  @Override
  public BlockSizes blockSizes() {
    return next.blockSizes();
  }

  @Override
  public String description() {
    return next.description();
  }

  @Override
  public Capabilities capabilities() {
    return next.capabilities();
  }

  @Override
  public Object identity() {
    return next.identity();
  }

  @Override
  public Optional<String> broken() {
    return next.broken();
  }

  @Override
  public void read(ByteBuffer into, long offset) throws IOException {
    next.read(into, offset);
  }

  @Override
  public boolean readNow(ByteBuffer into, long offset) throws IOException {
    return next.readNow(into, offset);
  }

  @Override
  public boolean transferNow(long offset, long length, ReadTarget to) throws IOException {
    return next.transferNow(offset, length, to);
  }

  @Override
  public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    next.write(from, offset, flags);
  }

  @Override
  public boolean writeNow(ByteBuffer from, long offset) throws IOException {
    return next.writeNow(from, offset);
  }

  @Override
  public void push() {
    next.push();
  }

  @Override
  public void flush() throws IOException {
    next.flush();
  }

  @Override
  public void trim(long offset, long length, CommandFlags flags) throws IOException {
    next.trim(offset, length, flags);
  }

  @Override
  public void zero(long offset, long length, CommandFlags flags) throws IOException {
    next.zero(offset, length, flags);
  }

  @Override
  public void cache(long offset, long length) throws IOException {
    next.cache(offset, length);
  }

  @Override
  public List<Extent> extents(long offset, long length, int most) throws IOException {
    return next.extents(offset, length, most);
  }

  @Override
  public void close() throws IOException {
    next.close();
  }
}
