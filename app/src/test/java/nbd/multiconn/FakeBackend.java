package nbd.multiconn;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Fua;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;

/**
 * A backend that stores nothing, remembers which of its handles were flushed in which order, and
 * lets a test stop or fail each call. It finds fault with calls on closed handles.
 */
final class FakeBackend implements Backend {
  /** What a test does inside a call. */
  interface Hook {
    void run() throws IOException;
  }

  static final Capabilities WRITABLE =
      Capabilities.of(
          Fua.NATIVE,
          Capability.WRITE,
          Capability.FLUSH,
          Capability.TRIM,
          Capability.ZERO,
          Capability.FAST_ZERO,
          Capability.CACHE);

  static final Capabilities MULTI_CONN = WRITABLE.with(Capability.MULTI_CONN);

  final List<FakeHandle> handles = new CopyOnWriteArrayList<>();
  final List<Integer> flushed = new CopyOnWriteArrayList<>();
  final List<String> faults = new CopyOnWriteArrayList<>();

  Capabilities capabilities;

  /** What is opened from now on. */
  Object storage = "storage";

  ThreadModel threadModel = ThreadModel.PARALLEL;

  FakeBackend(Capabilities capabilities) {
    this.capabilities = capabilities;
  }

  /** The flushes since the last time that this was asked. */
  List<Integer> takeFlushed() {
    List<Integer> taken = new ArrayList<>(flushed);
    flushed.clear();
    return taken;
  }

  @Override
  public String name() {
    return "fake";
  }

  @Override
  public ThreadModel threadModel() {
    return threadModel;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) {
    FakeHandle handle =
        new FakeHandle(handles.size(), readOnly ? capabilities.readOnly() : capabilities);
    handles.add(handle);
    return handle;
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  /** A handle whose calls a test can hook. */
  final class FakeHandle implements Handle {
    final int number;
    private final Capabilities has;
    private final Object opened = storage;
    final AtomicInteger inside = new AtomicInteger();
    volatile boolean closed;

    /** What the handle knows of itself. */
    volatile Supplier<Optional<String>> broken = Optional::empty;

    volatile Hook onRead = () -> {};
    volatile Hook onWrite = () -> {};
    volatile Hook onFlush = () -> {};
    volatile Hook onClose = () -> {};

    FakeHandle(int number, Capabilities has) {
      this.number = number;
      this.has = has;
    }

    private void call(String what, Capability needed, Hook hook) throws IOException {
      if (closed) {
        faults.add(what + " on closed handle " + number);
      }
      if (!has.has(needed)) {
        faults.add(what + " on handle " + number + ", which has none");
      }
      call(hook);
    }

    private void call(Hook hook) throws IOException {
      inside.incrementAndGet();
      try {
        hook.run();
      } finally {
        inside.decrementAndGet();
      }
    }

    @Override
    public long size() {
      return 1 << 20;
    }

    @Override
    public Capabilities capabilities() {
      return has;
    }

    @Override
    public Object identity() {
      return opened;
    }

    @Override
    public Optional<String> broken() {
      return broken.get();
    }

    @Override
    public void read(ByteBuffer into, long offset) throws IOException {
      call(onRead);
      into.position(into.limit());
    }

    @Override
    public boolean readNow(ByteBuffer into, long offset) throws IOException {
      read(into, offset);
      return true;
    }

    @Override
    public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      call("write", Capability.WRITE, onWrite);
      from.position(from.limit());
    }

    @Override
    public boolean writeNow(ByteBuffer from, long offset) throws IOException {
      write(from, offset, CommandFlags.NONE);
      return true;
    }

    @Override
    public void flush() throws IOException {
      flushed.add(number);
      call("flush", Capability.FLUSH, onFlush);
    }

    @Override
    public void trim(long offset, long length, CommandFlags flags) throws IOException {
      call("trim", Capability.TRIM, onWrite);
    }

    @Override
    public void zero(long offset, long length, CommandFlags flags) throws IOException {
      call("zero", Capability.ZERO, onWrite);
    }

    @Override
    public void cache(long offset, long length) throws IOException {
      call("cache", Capability.CACHE, onRead);
    }

    @Override
    public void close() throws IOException {
      if (closed) {
        faults.add("second close of handle " + number);
      }
      if (inside.get() > 0) {
        faults.add("close of handle " + number + " with a call inside");
      }
      closed = true;
      onClose.run();
    }
  }
}
