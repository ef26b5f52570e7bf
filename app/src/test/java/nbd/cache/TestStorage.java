package nbd.cache;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.ThreadModel;
import nbd.testing.Eventually;
import nbd.testing.PlainHandle;

/**
 * Storage whose calls a test can hold up, fail and look at, and that forgets what was not flushed
 * when it crashes, which breaks its handles.
 */
final class TestStorage implements Backend {
  static final Capabilities CAPABILITIES =
      Capabilities.of(
          Capability.FUA,
          Capability.WRITE,
          Capability.FLUSH,
          Capability.TRIM,
          Capability.ZERO,
          Capability.FAST_ZERO,
          Capability.EXTENTS);

  private byte[] content;
  private byte[] durable;
  private final AtomicInteger crashes = new AtomicInteger();
  private final List<Call> calls = new CopyOnWriteArrayList<>();
  final AtomicInteger open = new AtomicInteger();
  final AtomicInteger opened = new AtomicInteger();
  volatile Hook before = call -> {};
  volatile Hook after = call -> {};

  /** What opening does first; it gets a call of the command CACHE, which comes otherwise never. */
  volatile Hook opening = call -> {};

  volatile Capabilities capabilities = CAPABILITIES;
  volatile BlockSizes blockSizes = BlockSizes.DEFAULT;
  volatile boolean closed;

  /** Whether all of it is called a hole, or what is zero only. */
  volatile boolean tellsData;

  /** What a call does before or after its work. */
  @FunctionalInterface
  interface Hook {
    /** May wait, and may throw. */
    void on(Call call) throws IOException;
  }

  /** A call that a handle got. */
  record Call(Command command, long offset, long length, CommandFlags flags) {
    static Call of(Command command, long offset, long length) {
      return new Call(command, offset, length, CommandFlags.NONE);
    }
  }

  /** Holds the first call of a kind that comes. */
  static final class Gate implements Hook {
    private final Command command;
    private final CountDownLatch reached = new CountDownLatch(1);
    private final CountDownLatch opened = new CountDownLatch(1);
    private final AtomicInteger met = new AtomicInteger();

    Gate(Command command) {
      this.command = command;
    }

    @Override
    public void on(Call call) {
      if (call.command == command && met.getAndIncrement() == 0) {
        reached.countDown();
        Eventually.await(opened);
      }
    }

    void awaitReached() {
      Eventually.await(reached);
    }

    void open() {
      opened.countDown();
    }
  }

  TestStorage(int size) {
    content = new byte[size];
    durable = new byte[size];
  }

  /** Its content is its address, sector by sector. */
  static TestStorage numbered(int size) {
    TestStorage storage = new TestStorage(size);
    ByteBuffer into = ByteBuffer.wrap(storage.content);
    for (int at = 0; at + 8 <= size; at += 512) {
      into.putLong(at, -1 - at);
    }
    storage.durable = storage.content.clone();
    return storage;
  }

  /** Loses what was not flushed, and breaks the handles. */
  synchronized void crash() {
    content = durable.clone();
    crashes.incrementAndGet();
  }

  synchronized void grow(int size) {
    content = Arrays.copyOf(content, size);
    durable = Arrays.copyOf(durable, size);
  }

  synchronized byte[] content() {
    return content.clone();
  }

  synchronized byte[] durable() {
    return durable.clone();
  }

  synchronized long valueAt(int offset) {
    return ByteBuffer.wrap(content).getLong(offset);
  }

  synchronized long durableAt(int offset) {
    return ByteBuffer.wrap(durable).getLong(offset);
  }

  List<Call> calls() {
    return List.copyOf(calls);
  }

  List<Call> calls(Command command) {
    return calls.stream().filter(call -> call.command == command).toList();
  }

  int count(Command command) {
    return calls(command).size();
  }

  void forgetCalls() {
    calls.clear();
  }

  /** Every call of the kind fails from now on. */
  void fail(Command command, NbdError error) {
    before =
        call -> {
          if (call.command == command) {
            throw new nbd.protocol.NbdException(error, "the test storage fails");
          }
        };
  }

  void heal() {
    before = call -> {};
  }

  @Override
  public String name() {
    return "test";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    opening.on(Call.of(Command.CACHE, 0, 0));
    open.incrementAndGet();
    opened.incrementAndGet();
    return new TestHandle(
        crashes.get(), content.length, readOnly ? capabilities.readOnly() : capabilities);
  }

  @Override
  public void close() {
    closed = true;
  }

  private final class TestHandle extends PlainHandle {
    private final int bornAfter;
    private final long size;

    TestHandle(int bornAfter, long size, Capabilities can) {
      super(new ExportFacts(size, blockSizes, can, "", TestStorage.class));
      this.bornAfter = bornAfter;
      this.size = size;
    }

    private void call(Command command, long offset, long length, CommandFlags flags, Runnable work)
        throws IOException {
      Call call = new Call(command, offset, length, flags);
      calls.add(call);
      before.on(call);
      synchronized (TestStorage.this) {
        if (bornAfter != crashes.get()) {
          throw new LostException(NbdError.EIO, "the test storage has crashed");
        }
        work.run();
        if (flags.has(CommandFlag.FUA)) {
          System.arraycopy(content, (int) offset, durable, (int) offset, (int) length);
        }
      }
      after.on(call);
      if (bornAfter != crashes.get()) {
        throw new LostException(NbdError.EIO, "the test storage has crashed after that");
      }
    }

    @Override
    protected void doRead(ByteBuffer into, long offset) throws IOException {
      call(
          Command.READ,
          offset,
          into.remaining(),
          CommandFlags.NONE,
          () -> into.put(content, (int) offset, into.remaining()));
    }

    @Override
    protected void doWrite(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      int length = from.remaining();
      call(Command.WRITE, offset, length, flags, () -> from.get(content, (int) offset, length));
    }

    @Override
    protected void doFlush() throws IOException {
      // What is written while it runs need not be in it.
      byte[][] started = new byte[1][];
      synchronized (TestStorage.this) {
        started[0] = content.clone();
      }
      call(Command.FLUSH, 0, 0, CommandFlags.NONE, () -> keep(started[0]));
    }

    private void keep(byte[] flushed) {
      // What was made durable by itself meanwhile stays.
      for (int i = 0; i < flushed.length; i++) {
        if (content[i] == flushed[i] || durable[i] != content[i]) {
          durable[i] = flushed[i];
        }
      }
    }

    @Override
    protected void doTrim(long offset, long length, CommandFlags flags) throws IOException {
      fill(Command.TRIM, offset, length, flags, (byte) 0x55);
    }

    @Override
    protected void doZero(long offset, long length, CommandFlags flags) throws IOException {
      fill(Command.WRITE_ZEROES, offset, length, flags, (byte) 0);
    }

    private void fill(Command command, long offset, long length, CommandFlags flags, byte with)
        throws IOException {
      call(
          command,
          offset,
          length,
          flags,
          () -> Arrays.fill(content, (int) offset, (int) (offset + length), with));
    }

    @Override
    protected void doCache(long offset, long length) {
      throw new AssertionError("the cache reads itself");
    }

    @Override
    protected List<Extent> doExtents(long offset, long length, int most) throws IOException {
      call(Command.BLOCK_STATUS, offset, length, CommandFlags.NONE, () -> {});
      // As the contract allows: past the range.
      if (!tellsData) {
        return List.of(Extent.hole(size - offset));
      }
      synchronized (TestStorage.this) {
        int end = (int) offset;
        boolean isZero = content[end] == 0;
        while (end < size && (content[end] == 0) == isZero) {
          end++;
        }
        return List.of(isZero ? Extent.hole(end - offset) : Extent.data(end - offset));
      }
    }

    @Override
    public void close() {
      open.decrementAndGet();
    }
  }
}
