package nbd.testing;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
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

/**
 * Storage in an array whose calls a test can hold up, fail and look at. Every call takes the slow
 * way: it has no {@code ...Now}.
 */
public final class FakeBackend implements Backend {
  private final byte[] content;
  private final Capabilities capabilities;
  private final BlockSizes blockSizes;
  private final List<Call> calls = new CopyOnWriteArrayList<>();
  private volatile Hook hook = call -> {};
  private volatile boolean openFails;
  private volatile boolean quickFua;

  /** What every call of a handle does first. */
  @FunctionalInterface
  public interface Hook {
    /** May wait, and may throw. */
    void before(Call call) throws IOException;
  }

  /** A call that a handle got. */
  public record Call(Command command, long offset, long length, CommandFlags flags) {
    /** A call without flags. */
    public static Call of(Command command, long offset, long length) {
      return new Call(command, offset, length, CommandFlags.NONE);
    }
  }

  /** So many bytes, with everything that a client can ask for. */
  public FakeBackend(int size) {
    this(size, BlockSizes.DEFAULT, all());
  }

  /** So many bytes, with this ability. */
  public FakeBackend(int size, BlockSizes blockSizes, Capabilities capabilities) {
    this.content = new byte[size];
    this.blockSizes = blockSizes;
    this.capabilities = capabilities;
  }

  /** Everything that a client can ask for. */
  public static Capabilities all() {
    return Capabilities.of(Capability.values());
  }

  /** Makes every later call do this first. */
  public FakeBackend hook(Hook newHook) {
    hook = newHook;
    return this;
  }

  /** Makes it say that FUA is quick. */
  public FakeBackend quickFua() {
    quickFua = true;
    return this;
  }

  /** Makes every later open fail. */
  public FakeBackend failOpen() {
    openFails = true;
    return this;
  }

  /** The calls so far, in the order in which they began. */
  public List<Call> calls() {
    return Collections.unmodifiableList(calls);
  }

  /** How many calls of a command began. */
  public long count(Command command) {
    return calls.stream().filter(call -> call.command() == command).count();
  }

  @Override
  public String name() {
    return "fake";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    if (openFails) {
      throw new IOException("the fake storage cannot be opened");
    }
    return new FakeHandle(readOnly ? capabilities.readOnly() : capabilities);
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  private final class FakeHandle extends PlainHandle {
    FakeHandle(Capabilities can) {
      super(new ExportFacts(content.length, blockSizes, can, "", FakeBackend.class));
    }

    private void begin(Command command, long offset, long length, CommandFlags flags)
        throws IOException {
      Call call = new Call(command, offset, length, flags);
      calls.add(call);
      hook.before(call);
    }

    @Override
    protected void doRead(ByteBuffer into, long offset) throws IOException {
      begin(Command.READ, offset, into.remaining(), CommandFlags.NONE);
      synchronized (content) {
        into.put(content, (int) offset, into.remaining());
      }
    }

    @Override
    protected void doWrite(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      begin(Command.WRITE, offset, from.remaining(), flags);
      synchronized (content) {
        from.get(content, (int) offset, from.remaining());
      }
    }

    @Override
    protected boolean isQuick(Operation operation) {
      return operation.command() == Command.WRITE && operation.fua() && quickFua;
    }

    @Override
    protected void doFlush() throws IOException {
      begin(Command.FLUSH, 0, 0, CommandFlags.NONE);
    }

    @Override
    protected void doTrim(long offset, long length, CommandFlags flags) throws IOException {
      begin(Command.TRIM, offset, length, flags);
    }

    @Override
    protected void doZero(long offset, long length, CommandFlags flags) throws IOException {
      begin(Command.WRITE_ZEROES, offset, length, flags);
      synchronized (content) {
        java.util.Arrays.fill(content, (int) offset, (int) (offset + length), (byte) 0);
      }
    }

    @Override
    protected void doCache(long offset, long length) throws IOException {
      begin(Command.CACHE, offset, length, CommandFlags.NONE);
    }

    @Override
    public void close() {
      // Nothing is held.
    }
  }
}
