package nbd.multiconn;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;
import nbd.storage.LostException;
import nbd.storage.ThreadModel;
import nbd.testing.PlainHandle;
import org.jspecify.annotations.Nullable;

/**
 * One register, which each handle caches on its own until its flush, in as few steps as show every
 * race: small enough for a model checker. It counts which writes are durable, and fails the flushes
 * that a test tells it to.
 */
final class ModelStorage implements Backend {
  private final AtomicReference<Long> stored = new AtomicReference<>(0L);
  private final boolean multiConn;
  private final Capabilities capabilities;
  final List<ModelHandle> handles = new ArrayList<>();

  ModelStorage(boolean multiConn) {
    this.multiConn = multiConn;
    Capabilities has = Capabilities.of(Capability.WRITE, Capability.FLUSH);
    capabilities = multiConn ? has.with(Capability.MULTI_CONN) : has;
  }

  @Override
  public String name() {
    return "model";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public ModelHandle open(String exportName, boolean readOnly) {
    ModelHandle handle = new ModelHandle();
    handles.add(handle);
    return handle;
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  /** What a handle has cached. */
  private record Cached(long value, boolean written) {}

  /** A handle with its private cache. */
  final class ModelHandle extends PlainHandle {
    ModelHandle() {
      super(new ExportFacts(Long.BYTES, capabilities));
    }

    private final AtomicReference<@Nullable Cached> cache = new AtomicReference<>();

    /** How many writes the client knows the answer of. */
    final AtomicInteger answered = new AtomicInteger();

    /** How many writes were done, and how many of these a flush has made durable. */
    final AtomicInteger written = new AtomicInteger();

    final AtomicInteger durable = new AtomicInteger();
    final AtomicInteger failures = new AtomicInteger();
    final AtomicReference<@Nullable AssertionError> fault = new AtomicReference<>();
    volatile boolean closed;
    volatile boolean broken;

    private void check() throws LostException {
      if (broken) {
        throw new LostException(NbdError.ESHUTDOWN, "broken for good");
      }
    }

    @Override
    protected void doRead(ByteBuffer into, long offset) throws IOException {
      check();
      if (multiConn) {
        into.putLong(stored.get());
        return;
      }
      Cached cached = cache.get();
      if (cached == null) {
        Cached fetched = new Cached(stored.get(), false);
        cached = cache.compareAndSet(null, fetched) ? fetched : cache.get();
        cached = cached == null ? fetched : cached;
      }
      into.putLong(cached.value);
    }

    @Override
    protected void doWrite(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      check();
      if (multiConn) {
        stored.set(from.getLong());
      } else {
        cache.set(new Cached(from.getLong(), true));
      }
      written.incrementAndGet();
    }

    @Override
    protected void doFlush() throws IOException {
      if (closed) {
        fault.compareAndSet(null, new AssertionError("a flush entered a closed handle"));
      }
      check();
      List<ModelHandle> covered = multiConn ? handles : List.of(this);
      int[] counts = new int[covered.size()];
      for (int i = 0; i < counts.length; i++) {
        counts[i] = covered.get(i).written.get();
      }
      if (failures.get() > 0 && failures.getAndDecrement() > 0) {
        throw new IOException("broken");
      }
      Cached cached = cache.get();
      while (cached != null) {
        if (cached.written) {
          stored.set(cached.value);
        }
        cached = cache.compareAndSet(cached, null) ? null : cache.get();
      }
      for (int i = 0; i < counts.length; i++) {
        covered.get(i).durable.accumulateAndGet(counts[i], Math::max);
      }
      if (closed) {
        fault.compareAndSet(null, new AssertionError("a handle was closed with a flush inside"));
      }
    }

    @Override
    public void close() {
      closed = true;
    }
  }
}
