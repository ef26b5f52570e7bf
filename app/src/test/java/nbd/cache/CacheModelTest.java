package nbd.cache;

import static nbd.cache.Scene.BLOCK;
import static nbd.cache.Scene.SECTOR;
import static org.jetbrains.lincheck.datastructures.ManagedStrategyGuaranteeKt.forClasses;

import java.io.IOException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.LongAdder;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.BufferPool;
import nbd.storage.DirectMemory;
import nbd.storage.Handle;
import nbd.testing.Running;
import org.jetbrains.kotlinx.lincheck.Actor;
import org.jetbrains.kotlinx.lincheck.execution.ExecutionScenario;
import org.jetbrains.lincheck.datastructures.IntGen;
import org.jetbrains.lincheck.datastructures.ModelCheckingOptions;
import org.jetbrains.lincheck.datastructures.Operation;
import org.jetbrains.lincheck.datastructures.Param;
import org.jetbrains.lincheck.datastructures.Validate;
import org.junit.jupiter.api.Test;
import org.tinylog.Logger;

/**
 * A systematic exploration, by Lincheck, of the interleavings of clients' calls with each other and
 * with the calls that they cause: fetches, write-backs and flushes of the storage. In each
 * interleaving is checked: the sectors are linearizable; a flush or a FUA write that succeeded made
 * durable what had been answered before it; nothing stays dirty, and nothing hangs. The property
 * {@code nbd.cache.scenarios} says how many random scenarios are tried too, {@code
 * nbd.cache.invocations} how many interleavings of each are tried, and of those that are written
 * down here.
 */
class CacheModelTest {
  private static final int SCENARIOS = Integer.getInteger("nbd.cache.scenarios", 0);
  private static final int INVOCATIONS = Integer.getInteger("nbd.cache.invocations", 40);

  /** More than any loop of the cache here has, so that Lincheck takes none for endless. */
  private static final int LOOPS = 500;

  /** The first two sectors are of one block, the third of another. */
  private static final int SECTORS = 3;

  private static int offset(int sector) {
    return sector == 2 ? BLOCK : sector * SECTOR;
  }

  private static ModelCheckingOptions options() {
    return new ModelCheckingOptions()
        .actorsBefore(0)
        .actorsAfter(0)
        .iterations(SCENARIOS)
        .invocationsPerIteration(INVOCATIONS)
        .minimizeFailedScenario(false)
        .loopBound(LOOPS)
        .loopIterationsBeforeThreadSwitch(LOOPS)
        .sequentialSpecification(Sectors.class)
        // The checks themselves are not explored.
        .addGuarantee(
            forClasses(History.class.getName(), ModelStorage.State.class.getName())
                .allMethods()
                .ignore())
        // Only called with the stripe's lock held: there is nothing to be seen between two steps.
        .addGuarantee(
            forClasses(Bits.class.getName(), Frame.class.getName(), Block.class.getName())
                .allMethods()
                .ignore())
        .addGuarantee(
            forClasses(
                    Logger.class.getName(), LongAdder.class.getName(), DirectMemory.class.getName())
                .allMethods()
                .ignore());
  }

  @Test
  void sectorsAreLinearizableAndAFlushCoversWhatWasAnswered() {
    ModelCheckingOptions options = options().threads(2).actorsPerThread(3);
    // Two writers and their flushes.
    scenario(
        options,
        thread(call("write", 0, 1), call("flush")),
        thread(call("write", 1, 3), call("flush")));
    // A fetch meets writes to what it fetches, and next to it.
    scenario(options, thread(call("read", 1), call("read", 1)), thread(call("write", 1, 2)));
    // A write through meets a write into the cache that is written back.
    scenario(
        options,
        thread(call("writeDurably", 0, 1), call("read", 0)),
        thread(call("write", 0, 2), call("flush"), call("read", 0)));
    // A zeroing meets a write that is written back.
    scenario(
        options,
        thread(call("zero", 0), call("read", 0)),
        thread(call("write", 0, 2), call("flush")));
    // A fetch meets a trim of a part of it.
    scenario(
        options,
        thread(call("write", 0, 1), call("trim", 0), call("read", 0)),
        thread(call("read", 1), call("read", 0)));
    options.check(Clients.class);
  }

  @Test
  void partsOfSectorsAreLinearizableBesideChangesOfTheSameSector() {
    ModelCheckingOptions options = options().threads(2).actorsPerThread(3);
    // A part is written while the whole sector is replaced, and while it is cleared.
    scenario(
        options,
        thread(call("writeDurably", 0, 1), call("read", 0)),
        thread(call("writeHalf", 0, 2), call("read", 0)));
    scenario(
        options,
        thread(call("zero", 0), call("read", 0)),
        thread(call("writeHalf", 0, 2), call("flush")));
    // A client sees a write of a part before it is answered, and then a newer write.
    scenario(
        options,
        thread(call("writeHalfDurably", 2, 1)),
        thread(call("read", 2), call("write", 2, 2), call("read", 2)));
    options.check(Clients.class);
  }

  private static Actor[] thread(Actor... calls) {
    return calls;
  }

  private static void scenario(ModelCheckingOptions options, Actor[]... threads) {
    options.addCustomScenario(
        new ExecutionScenario(
            List.of(call("write", 0, 9)),
            Arrays.stream(threads).map(List::of).toList(),
            List.of(),
            actor("thePromiseWasKept", List.of())));
  }

  private static Actor call(String name, Object... parameters) {
    return actor(name, List.of(parameters));
  }

  private static Actor actor(String name, List<Object> parameters) {
    for (Method method : Clients.class.getMethods()) {
      if (method.getName().equals(name)) {
        return new Actor(method, parameters);
      }
    }
    throw new AssertionError("there is no operation " + name);
  }

  /** The sequential specification: the sectors' numbers, one operation after the other. */
  public static final class Sectors {
    private final int[] halves = new int[2 * SECTORS];

    public void write(int sector, int value) {
      halves[2 * sector] = value;
      halves[2 * sector + 1] = value;
    }

    public void writeDurably(int sector, int value) {
      write(sector, value);
    }

    public void writeHalf(int sector, int value) {
      halves[2 * sector + 1] = value;
    }

    public void writeHalfDurably(int sector, int value) {
      writeHalf(sector, value);
    }

    public void trim(int sector) {
      write(sector, ModelStorage.TRIMMED);
    }

    public void zero(int sector) {
      write(sector, 0);
    }

    public int read(int sector) {
      return 100 * halves[2 * sector] + halves[2 * sector + 1];
    }

    public void flush() {
      // Changes no number; the clients check what is durable.
    }
  }

  /** The operations of clients on one export. */
  public static final class Clients {
    private static final int BLOCKS = 4;
    private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);

    private final History history = new History(2 * SECTORS);
    private final AtomicReference<Throwable> failure = new AtomicReference<>();
    private final ModelStorage storage;
    private final ExportCache cache;
    private final Handle handle;

    /** Opens the cache. */
    public Clients() throws IOException {
      storage = new ModelStorage(2 * BLOCK);
      // Frames in the heap keep each run of the model cheap.
      Frames frames = new Frames(BLOCK, BLOCKS);
      BufferPool buffers = new BufferPool(0, new DirectMemory(0, () -> 0));
      for (int i = 0; i < BLOCKS; i++) {
        frames.giveBack(new Frame(ByteBuffer.allocate(BLOCK), 0));
      }
      cache =
          new ExportCache(
              storage,
              "",
              new CacheSettings(CacheMode.WRITEBACK, 4L * BLOCK, BLOCK),
              frames,
              buffers,
              new CacheStatistics(),
              Storage.PAUSE,
              task -> {});
      handle = new CacheHandle(cache, false, () -> {});
    }

    /** Writes a sector. */
    @Operation
    public void write(
        @Param(gen = IntGen.class, conf = "0:2") int sector,
        @Param(gen = IntGen.class, conf = "1:90") int value) {
      change(2 * sector, 2, value, () -> put(offset(sector), SECTOR, value, CommandFlags.NONE));
    }

    /** Writes a sector with FUA. */
    @Operation
    public void writeDurably(
        @Param(gen = IntGen.class, conf = "0:2") int sector,
        @Param(gen = IntGen.class, conf = "1:90") int value) {
      int end = change(2 * sector, 2, value, () -> put(offset(sector), SECTOR, value, FUA));
      // Only up to its own end: FUA makes no later write durable.
      isDurable(2 * sector, 2, end + 1);
    }

    /** Writes the second half of a sector. */
    @Operation
    public void writeHalf(
        @Param(gen = IntGen.class, conf = "0:2") int sector,
        @Param(gen = IntGen.class, conf = "1:90") int value) {
      putHalf(sector, value, CommandFlags.NONE);
    }

    /** Writes the second half of a sector with FUA. */
    @Operation
    public void writeHalfDurably(
        @Param(gen = IntGen.class, conf = "0:2") int sector,
        @Param(gen = IntGen.class, conf = "1:90") int value) {
      int end = putHalf(sector, value, FUA);
      isDurable(2 * sector + 1, 1, end + 1);
    }

    private int putHalf(int sector, int value, CommandFlags flags) {
      int half = SECTOR / 2;
      return change(2 * sector + 1, 1, value, () -> put(offset(sector) + half, half, value, flags));
    }

    /** Trims a sector. */
    @Operation
    public void trim(@Param(gen = IntGen.class, conf = "0:2") int sector) {
      change(
          2 * sector,
          2,
          ModelStorage.TRIMMED,
          () -> handle.trim(offset(sector), SECTOR, CommandFlags.NONE));
    }

    /** Zeroes a sector. */
    @Operation
    public void zero(@Param(gen = IntGen.class, conf = "0:2") int sector) {
      change(2 * sector, 2, 0, () -> handle.zero(offset(sector), SECTOR, CommandFlags.NONE));
    }

    /** Reads a sector: the numbers of both halves. */
    @Operation
    public int read(@Param(gen = IntGen.class, conf = "0:2") int sector) {
      ByteBuffer into = ByteBuffer.allocate(SECTOR);
      succeeds(() -> handle.read(into.clear(), offset(sector)));
      return 100 * into.getInt(0) + into.getInt(SECTOR / 2);
    }

    /** Flushes, and checks that every change answered before is durable. */
    @Operation
    public void flush() {
      int before = history.now();
      try {
        handle.flush();
      } catch (IOException e) {
        fail("a flush failed: " + e);
        return;
      }
      isDurable(0, 2 * SECTORS, before);
    }

    private void put(int offset, int count, int value, CommandFlags flags) throws IOException {
      ByteBuffer data = ByteBuffer.allocate(count);
      for (int at = 0; at < count; at += ModelStorage.UNIT) {
        data.putInt(at, value);
      }
      handle.write(data, offset, flags);
    }

    private int change(int first, int count, int value, Running.Call action) {
      int[] changes = history.begin(first, count, value);
      succeeds(action);
      return history.end(changes);
    }

    private void succeeds(Running.Call action) {
      try {
        action.run();
      } catch (IOException e) {
        fail("a call failed: " + e);
      }
    }

    private void isDurable(int first, int count, int before) {
      for (int half = first; half < first + count; half++) {
        int durable = storage.durableAt(offset(half / 2) + half % 2 * ModelStorage.UNIT);
        if (!history.mayBe(half, durable, before)) {
          fail("half sector " + half + " is stored as " + durable + ", which is too old");
        }
      }
    }

    private void fail(String what) {
      failure.compareAndSet(null, new AssertionError(what));
    }

    /**
     * Fails if an operation found the promise broken, or if a last flush leaves anything dirty or
     * lost.
     */
    @Validate
    public void thePromiseWasKept() throws Throwable {
      try {
        succeeds(handle::flush);
        isDurable(0, 2 * SECTORS, history.now());
        for (int sector = 0; sector < SECTORS; sector++) {
          int first = storage.durableAt(offset(sector));
          int second = storage.durableAt(offset(sector) + ModelStorage.UNIT);
          if (read(sector) != 100 * first + second) {
            fail("cache and storage differ in sector " + sector);
          }
        }
        if (cache.states.dirtyBytes() != 0 || cache.frames.dirty() != 0) {
          fail("something stays dirty");
        }
        if (cache.losses.unreported().isPresent()) {
          fail("something is said to be lost");
        }
      } catch (RuntimeException e) {
        failure.compareAndSet(null, e);
      }
      Throwable found = failure.get();
      if (found != null) {
        throw found;
      }
    }
  }
}
