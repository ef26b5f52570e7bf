package nbd.memory;

import java.nio.ByteBuffer;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Fua;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;
import nbd.storage.Zeroes;

/** Reads zeroes and forgets writes: for measuring the server itself. */
public final class NullBackend implements Backend {
  private static final Capabilities WRITABLE =
      Capabilities.of(
          Fua.NATIVE,
          Capability.WRITE,
          Capability.FLUSH,
          Capability.TRIM,
          Capability.ZERO,
          Capability.FAST_ZERO,
          Capability.CACHE,
          Capability.MULTI_CONN);

  private final long size;

  /** Serves so many bytes. */
  public NullBackend(long size) {
    this.size = size;
  }

  @Override
  public String name() {
    return "null";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) {
    return new NullHandle(size, readOnly ? WRITABLE.readOnly() : WRITABLE);
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  private record NullHandle(long size, Capabilities capabilities) implements Handle {
    @Override
    public void read(ByteBuffer into, long offset) {
      Zeroes.put(into, into.remaining());
    }

    @Override
    public boolean readNow(ByteBuffer into, long offset) {
      read(into, offset);
      return true;
    }

    @Override
    public void write(ByteBuffer from, long offset, CommandFlags flags) {
      from.position(from.limit());
    }

    @Override
    public boolean writeNow(ByteBuffer from, long offset) {
      from.position(from.limit());
      return true;
    }

    @Override
    public void flush() {
      // Nothing is kept.
    }

    @Override
    public void trim(long offset, long length, CommandFlags flags) {
      // Nothing is kept.
    }

    @Override
    public void zero(long offset, long length, CommandFlags flags) {
      // Nothing is kept.
    }

    @Override
    public void cache(long offset, long length) {
      // Nothing is kept.
    }

    @Override
    public void close() {
      // Nothing is held.
    }
  }
}
