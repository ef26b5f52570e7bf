package nbd.multiconn;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.ThreadModel;
import nbd.testing.PlainHandle;

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
          Capability.FUA,
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
  final class FakeHandle extends PlainHandle {
    final int number;
    private final Capabilities has;
    final AtomicInteger inside = new AtomicInteger();
    volatile boolean closed;

    /** What the handle knows of itself. */
    volatile Supplier<Optional<String>> broken = Optional::empty;

    volatile Hook onRead = () -> {};
    volatile Hook onWrite = () -> {};
    volatile Hook onFlush = () -> {};
    volatile Hook onClose = () -> {};

    FakeHandle(int number, Capabilities has) {
      super(new ExportFacts(1 << 20, BlockSizes.DEFAULT, has, "", storage));
      this.number = number;
      this.has = has;
    }

    @Override
    protected boolean isQuick(Operation operation) {
      return operation.command() == Command.READ || operation.command() == Command.WRITE;
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
    public Optional<String> broken() {
      return broken.get();
    }

    @Override
    protected void doRead(ByteBuffer into, long offset) throws IOException {
      call(onRead);
      into.position(into.limit());
    }

    @Override
    protected void doWrite(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      call("write", Capability.WRITE, onWrite);
      from.position(from.limit());
    }

    @Override
    protected void doFlush() throws IOException {
      flushed.add(number);
      call("flush", Capability.FLUSH, onFlush);
    }

    @Override
    protected void doTrim(long offset, long length, CommandFlags flags) throws IOException {
      call("trim", Capability.TRIM, onWrite);
    }

    @Override
    protected void doZero(long offset, long length, CommandFlags flags) throws IOException {
      call("zero", Capability.ZERO, onWrite);
    }

    @Override
    protected void doCache(long offset, long length) throws IOException {
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
