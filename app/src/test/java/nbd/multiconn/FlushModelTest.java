package nbd.multiconn;

import static org.jetbrains.lincheck.datastructures.ManagedStrategyGuaranteeKt.forClasses;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicReference;
import nbd.check.HistoryChecker;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;
import org.jetbrains.lincheck.datastructures.ModelCheckingOptions;
import org.jetbrains.lincheck.datastructures.Operation;
import org.jetbrains.lincheck.datastructures.Param;
import org.jetbrains.lincheck.datastructures.ThreadIdGen;
import org.jetbrains.lincheck.datastructures.Validate;
import org.jetbrains.lincheck.datastructures.verifier.EpsilonVerifier;
import org.junit.jupiter.api.Test;
import org.tinylog.Logger;

/**
 * Has Lincheck explore systematically how writers, readers, flushers, closers, failing flushes and
 * breaking handles of three connections interleave. In each interleaving is checked: a flush that
 * succeeded made durable what had been answered before it, but for what the client was told to be
 * lost; reads are as the promise says; no flush enters a closed handle; nothing hangs. The property
 * {@code nbd.model.scenarios} says how many random scenarios, {@code nbd.model.invocations} how
 * many interleavings of each.
 */
class FlushModelTest {
  private static final int SCENARIOS = Integer.getInteger("nbd.model.scenarios", 12);
  private static final int INVOCATIONS = Integer.getInteger("nbd.model.invocations", 80);

  @Test
  void thePromiseIsKeptHoweverCommandsInterleave() {
    new ModelCheckingOptions()
        .threads(3)
        .actorsPerThread(3)
        .actorsBefore(0)
        .actorsAfter(0)
        .iterations(SCENARIOS)
        .invocationsPerIteration(INVOCATIONS)
        .minimizeFailedScenario(false)
        .verifier(EpsilonVerifier.class)
        // What checks is not what is checked.
        .addGuarantee(forClasses(HistoryChecker.class.getName()).allMethods().treatAsAtomic())
        .addGuarantee(forClasses(Logger.class.getName()).allMethods().ignore())
        .check(Connections.class);
  }

  /** Three connections, each of which is used by one thread. */
  public static final class Connections {
    private static final int COUNT = 3;

    private final HistoryChecker checker = new HistoryChecker(1);
    private final AtomicReference<Throwable> failure = new AtomicReference<>();
    private final List<ModelStorage.ModelHandle> below;
    private final List<Handle> handles = new ArrayList<>();
    private final AtomicIntegerArray closed = new AtomicIntegerArray(COUNT);
    private final List<List<HistoryChecker.Write>> answered = new ArrayList<>();

    /** Of how many writes of each other one a connection was told that they may be lost. */
    private final int[][] told = new int[COUNT][COUNT];

    /** Opens them. */
    public Connections() throws IOException {
      ModelStorage storage = new ModelStorage(false);
      MultiConnFilter filter =
          new MultiConnFilter(storage, MultiConnSettings.DEFAULT, Runnable::run);
      for (int i = 0; i < COUNT; i++) {
        handles.add(filter.open("", false));
        answered.add(new CopyOnWriteArrayList<>());
      }
      below = storage.handles;
    }

    /** A client's write, with its reply. */
    @Operation
    public void write(@Param(gen = ThreadIdGen.class) int thread) throws IOException {
      int connection = thread % COUNT;
      if (closed.get(connection) > 0) {
        return;
      }
      HistoryChecker.Write write = checker.beginWrite(connection, 0, false);
      ByteBuffer data = ByteBuffer.allocate(Long.BYTES).putLong(write.value()).flip();
      try {
        handles.get(connection).write(data, 0, CommandFlags.NONE);
      } catch (IOException broken) {
        checker.endWrite(write, false);
        return;
      }
      checker.endWrite(write, true);
      answered.get(connection).add(write);
    }

    /** A client's read. */
    @Operation
    public void read(@Param(gen = ThreadIdGen.class) int thread) throws IOException {
      int connection = thread % COUNT;
      if (closed.get(connection) > 0) {
        return;
      }
      HistoryChecker.Read read = checker.beginRead(connection, 0);
      ByteBuffer data = ByteBuffer.allocate(Long.BYTES);
      try {
        handles.get(connection).read(data, 0);
      } catch (IOException broken) {
        checker.failRead(read);
        return;
      }
      checker.endRead(read, data.getLong(0)).ifPresent(found -> fail(found.toString()));
    }

    /** A client's flush. */
    @Operation
    public void flush(@Param(gen = ThreadIdGen.class) int thread) {
      flushOn(thread % COUNT);
    }

    /** The same, so that flushes are as frequent as writes and reads together. */
    @Operation
    public void flushAgain(@Param(gen = ThreadIdGen.class) int thread) {
      flushOn(thread % COUNT);
    }

    private void flushOn(int connection) {
      if (closed.get(connection) > 0) {
        return;
      }
      int[] before = new int[COUNT];
      for (int i = 0; i < COUNT; i++) {
        before[i] = answered.get(i).size();
      }
      HistoryChecker.Flush flush = checker.beginFlush(connection);
      boolean succeeded = true;
      try {
        handles.get(connection).flush();
      } catch (IOException e) {
        succeeded = false;
      }
      checker.endFlush(flush, succeeded);
      for (int i = 0; i < COUNT; i++) {
        int durable = below.get(i).durable.get();
        if (succeeded && durable < before[i] && told[connection][i] < before[i]) {
          fail("a write is lost, and nobody was told");
        } else if (!succeeded && isGone(i)) {
          told[connection][i] = answered.get(i).size();
          answered.get(i).stream().skip(durable).forEach(checker::lose);
        }
      }
    }

    private boolean isGone(int connection) {
      return closed.get(connection) > 0 || below.get(connection).broken;
    }

    /** A client leaves, perhaps while its last flush fails. */
    @Operation
    public void close(@Param(gen = ThreadIdGen.class) int thread) {
      int connection = thread % COUNT;
      if (closed.get(connection) > 0) {
        return;
      }
      closed.set(connection, 1);
      try {
        handles.get(connection).close();
      } catch (IOException told) {
        // What was lost, the flushes of others have to tell.
      }
    }

    /** A handle breaks for good. */
    @Operation
    public void breakHandle(@Param(gen = ThreadIdGen.class) int thread) {
      below.get(thread % COUNT).broken = true;
    }

    /** The next flush of a handle fails. */
    @Operation
    public void failNextFlush(@Param(gen = ThreadIdGen.class) int thread) {
      below.get(thread % COUNT).failures.set(1);
    }

    private void fail(String what) {
      failure.compareAndSet(null, new AssertionError(what));
    }

    /** Whether an operation found the promise broken. */
    @Validate
    public void thePromiseWasKept() throws Throwable {
      Throwable found = failure.get();
      if (found == null) {
        found =
            below.stream()
                .map(handle -> handle.fault.get())
                .filter(f -> f != null)
                .findFirst()
                .orElse(null);
      }
      if (found != null) {
        throw found;
      }
    }
  }
}
