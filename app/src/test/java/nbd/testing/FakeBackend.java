package nbd.testing;

import java.io.IOException;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.function.Predicate;
import java.util.function.Supplier;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.storage.ThreadModel;
import org.jspecify.annotations.Nullable;

/**
 * Storage in memory that a test can hold up, fail, crash and look into. A call does its work at one
 * moment, between two hooks. A write is visible on all handles at once, unless each handle caches
 * on its own ({@link #cachingPrivately}), and durable by FUA or a flush: a flush of any handle if
 * the storage is multi-conn, else of the same handle.
 *
 * <p>No call is made at once unless a test says so ({@link #quick}), and none is begun: {@link
 * FarBackend} does that.
 */
public final class FakeBackend implements Backend {
  /** The byte that trimmed storage reads as. */
  public static final byte TRIMMED = 0x55;

  private final FakeContents contents;
  private final List<FakeHandle> handles = new CopyOnWriteArrayList<>();
  private final Hooks before = new Hooks();
  private final Hooks after = new Hooks();
  private final AtomicInteger open = new AtomicInteger();
  private volatile Capabilities capabilities;
  private volatile BlockSizes blockSizes;
  private volatile Object identity = FakeBackend.class;
  private volatile ThreadModel threadModel = ThreadModel.PARALLEL;
  private volatile Running.Call opening = () -> {};
  private volatile Predicate<Operation> quick = operation -> false;
  private volatile BooleanSupplier answersAfterBreak = () -> false;
  private volatile Allocation allocation = (offset, length) -> List.of(Extent.data(length));
  private volatile boolean isClosed;

  /** A test's part in a call. */
  @FunctionalInterface
  public interface Hook {
    /** Acts before or after the call's work; may wait, and may throw. */
    void on(Call call) throws IOException;
  }

  /** The answer to BLOCK_STATUS. */
  @FunctionalInterface
  public interface Allocation {
    /** Returns the extents of a range. */
    List<Extent> of(long offset, long length);
  }

  /** A call that a handle got. */
  public record Call(Command command, long offset, long length, CommandFlags flags) {
    /** Returns a call without flags. */
    public static Call of(Command command, long offset, long length) {
      return new Call(command, offset, length, CommandFlags.NONE);
    }

    /** Returns the call for an operation, with its flags if it changes data. */
    private static Call of(Operation operation) {
      CommandFlags flags =
          switch (operation.command()) {
            case WRITE, TRIM, WRITE_ZEROES -> operation.flags();
            default -> CommandFlags.NONE;
          };
      return new Call(operation.command(), operation.offset(), operation.length(), flags);
    }

    /** Returns for example "write 10 at 200", or "flush". */
    @Override
    public String toString() {
      String name = command.name().toLowerCase(Locale.ROOT);
      String range = length == 0 ? "" : " " + length + " at " + offset;
      return name + range + (flags.equals(CommandFlags.NONE) ? "" : " " + flags);
    }
  }

  /** The hooks of the commands, at most one for each. */
  private static final class Hooks {
    private volatile Map<Command, Hook> hooks = Map.of();

    synchronized void set(Hook hook, Command... commands) {
      Map<Command, Hook> changed = new EnumMap<>(Command.class);
      changed.putAll(hooks);
      for (Command command : commands.length == 0 ? Command.values() : commands) {
        changed.put(command, hook);
      }
      hooks = changed;
    }

    void clear() {
      hooks = Map.of();
    }

    void run(Call call) throws IOException {
      Hook hook = hooks.get(call.command);
      if (hook != null) {
        hook.on(call);
      }
    }
  }

  /** Makes storage of so many zeroes, with every capability. */
  public FakeBackend(int size) {
    this(size, BlockSizes.DEFAULT, all());
  }

  /** Makes storage of so many zeroes. */
  public FakeBackend(int size, BlockSizes blockSizes, Capabilities capabilities) {
    this(new byte[size], blockSizes, capabilities, false);
  }

  private FakeBackend(
      byte[] content, BlockSizes blockSizes, Capabilities capabilities, boolean cachesPrivately) {
    this.contents = new FakeContents(content, cachesPrivately);
    this.blockSizes = blockSizes;
    this.capabilities = capabilities;
  }

  /** Makes storage with this content. */
  public static FakeBackend of(byte[] content, Capabilities capabilities) {
    return new FakeBackend(content, BlockSizes.DEFAULT, capabilities, false);
  }

  /**
   * Makes storage each of whose handles caches its own reads and writes until a flush covers it.
   */
  public static FakeBackend cachingPrivately(int size, Capabilities capabilities) {
    return new FakeBackend(new byte[size], BlockSizes.DEFAULT, capabilities, true);
  }

  /** Returns every capability. */
  public static Capabilities all() {
    return Capabilities.of(Capability.values());
  }

  /** Runs a hook before the work of later calls of these commands, or of all if none is named. */
  public FakeBackend hook(Hook hook, Command... commands) {
    before.set(hook, commands);
    return this;
  }

  /** Runs a hook after the work of later calls of these commands, or of all if none is named. */
  public FakeBackend after(Hook hook, Command... commands) {
    after.set(hook, commands);
    return this;
  }

  /** Fails later calls of these commands, or of all if none is named. */
  public FakeBackend fail(IOException failure, Command... commands) {
    return hook(failing(failure), commands);
  }

  /** Returns a hook that always fails. */
  public static Hook failing(IOException failure) {
    return call -> {
      throw failure;
    };
  }

  /** Removes the hooks before opens and before calls' work, but not those of single handles. */
  public void heal() {
    opening = () -> {};
    before.clear();
  }

  /** Runs a hook before every later open. */
  public FakeBackend opening(Running.Call hook) {
    opening = hook;
    return this;
  }

  /** Fails every later open. */
  public FakeBackend failOpen() {
    return opening(
        () -> {
          throw new IOException("the fake storage cannot be opened");
        });
  }

  /** Sets which operations are done at once. */
  public FakeBackend quick(Predicate<Operation> which) {
    quick = which;
    return this;
  }

  /** Does writes with FUA at once, and nothing else. */
  public FakeBackend quickFua() {
    return quick(operation -> operation.command() == Command.WRITE && operation.fua());
  }

  /** Decides whether a call succeeds if its handle broke after the call's work. */
  public FakeBackend answerAfterBreak(BooleanSupplier answers) {
    answersAfterBreak = answers;
    return this;
  }

  /** Changes the capabilities of later handles. */
  public void capabilities(Capabilities changed) {
    capabilities = changed;
  }

  /** Changes the block sizes of later handles. */
  public void blockSizes(BlockSizes changed) {
    blockSizes = changed;
  }

  /** Changes the identity of later handles. */
  public void identity(Object changed) {
    identity = changed;
  }

  /** Changes the thread model. */
  public void threadModel(ThreadModel changed) {
    threadModel = changed;
  }

  /** Changes the answer to BLOCK_STATUS. */
  public void allocation(Allocation changed) {
    allocation = changed;
  }

  /** Changes the size that later handles see. */
  public void resize(int size) {
    contents.resize(size);
  }

  /** Loses what is not durable, and breaks all handles. */
  public void crash() {
    contents.crash("the fake storage has crashed");
  }

  /** Breaks all handles, and loses nothing. */
  public void cut() {
    contents.cut("the fake storage cannot be reached");
  }

  /** Returns the capabilities of later handles. */
  public Capabilities capabilities() {
    return capabilities;
  }

  /** Returns the handles in the order in which they were opened. */
  public List<FakeHandle> handles() {
    return handles;
  }

  /** Returns the number of open handles. */
  public int openHandles() {
    return open.get();
  }

  public boolean isClosed() {
    return isClosed;
  }

  /** Returns the bytes that are read, but for those that handles cache. */
  public byte[] content() {
    return contents.stored();
  }

  /** Returns the bytes that would survive a loss of power. */
  public byte[] durable() {
    return contents.durable();
  }

  /** Returns the number at an offset of {@link #content}. */
  public long valueAt(int offset) {
    return contents.storedAt(offset);
  }

  /** Returns the number at an offset of {@link #durable}. */
  public long durableAt(int offset) {
    return contents.durableAt(offset);
  }

  /** Returns the calls so far, in the order in which they began. */
  public List<Call> calls() {
    return contents.begun();
  }

  /** Returns the calls of a command so far, in the order in which they began. */
  public List<Call> calls(Command command) {
    return calls().stream().filter(call -> call.command() == command).toList();
  }

  /** Returns the number of calls of a command so far. */
  public int count(Command command) {
    return calls(command).size();
  }

  /**
   * Returns the numbers of the handles that got a flush, in the order in which the flushes began.
   */
  public List<Integer> flushed() {
    return contents.flushed();
  }

  /** Forgets the calls so far. */
  public void forgetCalls() {
    contents.forgetCalls();
  }

  /** Returns the calls whose work was done since the last time that this was asked. */
  public List<Call> takeDone() {
    return contents.takeDone();
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
  public Handle open(String exportName, boolean readOnly) throws IOException {
    opening.run();
    FakeHandle handle =
        new FakeHandle(
            new ExportFacts(
                contents.size(),
                blockSizes,
                readOnly ? capabilities.readOnly() : capabilities,
                "",
                identity));
    open.incrementAndGet();
    handles.add(handle);
    return handle;
  }

  @Override
  public void close() {
    isClosed = true;
  }

  /** A handle, with hooks of its own. */
  public final class FakeHandle extends Handle {
    private final FakeContents.View view = contents.open();
    private final Hooks hooks = new Hooks();
    private volatile Running.Call closing = () -> {};
    private volatile Supplier<Optional<String>> broken =
        () -> Optional.of(contents.knownBreak(view)).filter(why -> !why.isEmpty());
    private volatile boolean isOpen = true;

    private FakeHandle(ExportFacts facts) {
      super(facts);
    }

    /** Runs a hook before the work of later calls of these commands, or of all if none is named. */
    public void hook(Hook hook, Command... commands) {
      hooks.set(hook, commands);
    }

    /** Runs a hook when the handle is closed. */
    public void closing(Running.Call hook) {
      closing = hook;
    }

    /**
     * Breaks the handle for good; {@code knows} says whether it reports that before its next call.
     */
    public void cut(String why, boolean knows) {
      contents.cut(view, why, knows);
    }

    /** Replaces the handle's answer to {@link #broken()}. */
    public void broken(Supplier<Optional<String>> says) {
      broken = says;
    }

    public boolean isBroken() {
      return contents.isBroken(view);
    }

    public boolean isOpen() {
      return isOpen;
    }

    /** Returns the number of writes, trims and zeroings that were done. */
    public int writes() {
      return contents.writes(view);
    }

    /** Returns the number of them, counted from the first, that flushes have covered. */
    public int durableWrites() {
      return contents.durableWrites(view);
    }

    @Override
    public Optional<String> broken() {
      return broken.get();
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      boolean isDeclined = operation.isTransfer() || !quick.test(operation);
      if (patience != Patience.WAIT && (patience == Patience.LATER || isDeclined)) {
        return Outcome.DECLINED;
      }
      Call call = Call.of(operation);
      contents.begin(view, call);
      Object flush =
          call.command == Command.FLUSH
              ? contents.beginFlush(view, capabilities().has(Capability.MULTI_CONN))
              : null;
      try {
        before.run(call);
        hooks.run(call);
        work(operation, flush);
      } finally {
        if (flush != null) {
          contents.forget(flush);
        }
      }
      contents.end(call);
      after.run(call);
      if (contents.isBroken(view) && !answersAfterBreak.getAsBoolean()) {
        contents.check(view);
      }
      return Outcome.DONE;
    }

    private void work(Operation operation, @Nullable Object flush) throws LostException {
      int offset = (int) operation.offset();
      byte[] data = new byte[(int) operation.length()];
      switch (operation.command()) {
        case READ -> {
          contents.fetch(view, offset, data);
          contents.keep(view, offset, data);
          operation.data().put(data);
        }
        case WRITE -> {
          operation.data().duplicate().get(data);
          contents.write(view, offset, data, operation.fua());
          operation.data().position(operation.data().limit());
        }
        case TRIM, WRITE_ZEROES -> {
          Arrays.fill(data, operation.command() == Command.TRIM ? TRIMMED : 0);
          contents.write(view, offset, data, operation.fua());
        }
        case FLUSH -> contents.endFlush(view, flush);
        case CACHE -> {
          contents.fetch(view, offset, data);
          contents.keep(view, offset, data);
        }
        case BLOCK_STATUS -> {
          contents.check(view);
          operation.answer(allocation.of(operation.offset(), operation.length()));
        }
        default -> throw new AssertionError(operation.command());
      }
    }

    @Override
    public void close() throws IOException {
      if (isOpen) {
        open.decrementAndGet();
      }
      isOpen = false;
      closing.run();
    }
  }
}
