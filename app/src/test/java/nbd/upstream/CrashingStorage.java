package nbd.upstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.locks.LockSupport;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.Operation;
import nbd.storage.ThreadModel;
import nbd.testing.PlainHandle;

/**
 * Storage in another place: it crashes and comes back, with what was flushed and nothing else, and
 * breaks all handles by that. A call that a crash meets may have been done or not. A test can make
 * calls wait or fail before they are done; reads and writes can be begun, and end on other threads.
 */
final class CrashingStorage implements Backend {
  static final Capabilities CAPABILITIES =
      Capabilities.of(
          Capability.FUA,
          Capability.WRITE,
          Capability.FLUSH,
          Capability.TRIM,
          Capability.ZERO,
          Capability.FAST_ZERO,
          Capability.MULTI_CONN);

  /** Not multi-conn: one connection for all. */
  static final Capabilities SINGLE = CAPABILITIES.without(Capability.MULTI_CONN);

  /** What a call does first. */
  @FunctionalInterface
  interface Hook {
    /** May wait, and may throw. */
    void before(String what) throws IOException;
  }

  private final Random random;
  private volatile Hook hook = what -> {};
  private int opens;
  private int open;
  private byte[] cached;
  private byte[] durable;
  private int crashes;
  private boolean down;
  private Capabilities capabilities;
  private int flushes;
  private final List<String> done = new ArrayList<>();

  CrashingStorage(int size, long seed) {
    this(size, seed, CAPABILITIES);
  }

  CrashingStorage(int size, long seed, Capabilities capabilities) {
    this.capabilities = capabilities;
    cached = new byte[size];
    durable = new byte[size];
    random = new Random(seed);
  }

  /** Loses what was not flushed, and all handles. */
  synchronized void crash() {
    cached = durable.clone();
    crashes++;
  }

  /** Loses the handles, and nothing else. */
  synchronized void cut() {
    crashes++;
  }

  /** From now on every call does this first, and its answer once it is on its way. */
  void hook(Hook before) {
    hook = before;
  }

  /** How often it was opened. */
  synchronized int opens() {
    return opens;
  }

  /** How many handles have not been closed. */
  synchronized int open() {
    return open;
  }

  /** Whether new handles are refused. */
  synchronized void down(boolean isDown) {
    down = isDown;
  }

  /** Comes back smaller. */
  synchronized void shrink() {
    cached = new byte[cached.length / 2];
    durable = cached.clone();
    crashes++;
  }

  synchronized void change(Capabilities other) {
    capabilities = other;
    crashes++;
  }

  synchronized void changeForNewHandles(Capabilities other) {
    capabilities = other;
  }

  synchronized byte[] durable() {
    return durable.clone();
  }

  synchronized byte[] cached() {
    return cached.clone();
  }

  synchronized int flushes() {
    return flushes;
  }

  /** The writing calls since the last time that this was asked. */
  synchronized List<String> takeDone() {
    List<String> taken = List.copyOf(done);
    done.clear();
    return taken;
  }

  @Override
  public String name() {
    return "crashing";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    hook.before("open");
    return opened();
  }

  private synchronized Handle opened() throws IOException {
    if (down) {
      throw new IOException("it is down");
    }
    opens++;
    open++;
    return new CrashingHandle(crashes, cached.length, capabilities);
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  private final class CrashingHandle extends PlainHandle {
    private final int openedAt;

    CrashingHandle(int openedAt, long size, Capabilities has) {
      super(new ExportFacts(size, has));
      this.openedAt = openedAt;
    }

    private final List<Runnable> begun = new ArrayList<>();

    private void call(String what, Runnable work) throws IOException {
      hook.before(what);
      synchronized (CrashingStorage.this) {
        if (openedAt == crashes) {
          done.add(what);
          work.run();
        } else {
          throw new LostException(NbdError.EIO, "it has crashed");
        }
      }
      LockSupport.parkNanos(1);
      synchronized (CrashingStorage.this) {
        if (openedAt != crashes && random.nextBoolean()) {
          throw new LostException(NbdError.EIO, "it has crashed after that");
        }
      }
      hook.before("answered " + what);
    }

    @Override
    protected void doRead(ByteBuffer into, long offset) throws IOException {
      call("read", () -> into.put(cached, (int) offset, into.remaining()));
    }

    @Override
    protected void doWrite(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      String what = "write " + from.remaining() + " at " + offset;
      boolean forced = flags.has(CommandFlag.FUA);
      int start = (int) offset;
      int length = from.remaining();
      call(
          what,
          () -> {
            from.get(cached, start, length);
            if (forced) {
              System.arraycopy(cached, start, durable, start, length);
            }
          });
    }

    @Override
    protected void doFlush() throws IOException {
      call(
          "flush",
          () -> {
            durable = cached.clone();
            flushes++;
          });
    }

    @Override
    protected void doTrim(long offset, long length, CommandFlags flags) throws IOException {
      fill("trim ", offset, length, (byte) 0x55);
    }

    @Override
    protected void doZero(long offset, long length, CommandFlags flags) throws IOException {
      fill("zero ", offset, length, (byte) 0);
    }

    private void fill(String what, long offset, long length, byte with) throws IOException {
      call(
          what + length + " at " + offset,
          () -> Arrays.fill(cached, (int) offset, (int) (offset + length), with));
    }

    private boolean begin(Completion end, Begun call) {
      synchronized (begun) {
        begun.add(
            () -> {
              IOException outcome = null;
              try {
                call.run();
              } catch (IOException failure) {
                outcome = failure;
              }
              end.done(outcome);
            });
      }
      return true;
    }

    @Override
    protected boolean begins(Operation operation, Completion end) {
      return switch (operation.command()) {
        case READ, WRITE -> begin(end, () -> run(operation.copy()));
        default -> false;
      };
    }

    @Override
    public void push() {
      List<Runnable> pushed;
      synchronized (begun) {
        pushed = List.copyOf(begun);
        begun.clear();
      }
      pushed.forEach(Thread::startVirtualThread);
    }

    @Override
    public void close() {
      synchronized (CrashingStorage.this) {
        open--;
      }
    }
  }

  /** A call that was begun. */
  private interface Begun {
    void run() throws IOException;
  }
}
