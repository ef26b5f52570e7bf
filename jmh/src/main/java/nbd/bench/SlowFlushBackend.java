package nbd.bench;

import java.nio.ByteBuffer;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.LockSupport;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Fua;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;

/** Storage that stores nothing, whose flush takes a given time, and which counts flushes. */
final class SlowFlushBackend implements Backend {
  private final LongAdder flushes = new LongAdder();
  private final long flushNanoseconds;
  private final Capabilities capabilities;

  SlowFlushBackend(long flushNanoseconds, boolean multiConn) {
    this.flushNanoseconds = flushNanoseconds;
    Capabilities has = Capabilities.of(Fua.NONE, Capability.WRITE, Capability.FLUSH);
    this.capabilities = multiConn ? has.with(Capability.MULTI_CONN) : has;
  }

  long flushes() {
    return flushes.sum();
  }

  @Override
  public String name() {
    return "slow flush";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) {
    return new SlowFlushHandle();
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  private final class SlowFlushHandle implements Handle {
    @Override
    public long size() {
      return 1 << 30;
    }

    @Override
    public Capabilities capabilities() {
      return capabilities;
    }

    @Override
    public void read(ByteBuffer into, long offset) {
      into.position(into.limit());
    }

    @Override
    public boolean readNow(ByteBuffer into, long offset) {
      return true;
    }

    @Override
    public void write(ByteBuffer from, long offset, CommandFlags flags) {
      from.position(from.limit());
    }

    @Override
    public boolean writeNow(ByteBuffer from, long offset) {
      return true;
    }

    @Override
    public void flush() {
      flushes.increment();
      if (flushNanoseconds == 0) {
        return;
      }
      long end = System.nanoTime() + flushNanoseconds;
      for (long left = flushNanoseconds; left > 0; left = end - System.nanoTime()) {
        LockSupport.parkNanos(left);
      }
    }

    @Override
    public void trim(long offset, long length, CommandFlags flags) {
      // Nothing is stored.
    }

    @Override
    public void zero(long offset, long length, CommandFlags flags) {
      // Nothing is stored.
    }

    @Override
    public void cache(long offset, long length) {
      // Nothing is stored.
    }

    @Override
    public void close() {
      // Nothing is held.
    }
  }
}
