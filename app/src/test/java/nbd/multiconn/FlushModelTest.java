package nbd.multiconn;

import static org.jetbrains.lincheck.datastructures.ManagedStrategyGuaranteeKt.forClasses;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;
import java.util.function.UnaryOperator;
import nbd.check.HistoryChecker;
import nbd.protocol.Command;
import nbd.testing.FakeBackend;
import org.jetbrains.lincheck.datastructures.ModelCheckingOptions;
import org.jetbrains.lincheck.datastructures.Operation;
import org.jetbrains.lincheck.datastructures.Param;
import org.jetbrains.lincheck.datastructures.ThreadIdGen;
import org.jetbrains.lincheck.datastructures.Validate;
import org.jetbrains.lincheck.datastructures.verifier.EpsilonVerifier;
import org.junit.jupiter.api.Test;
import org.tinylog.Logger;

/**
 * A systematic exploration, by Lincheck, of the interleavings of writers, readers, flushers,
 * closers, failing flushes and breaking handles of three connections. In each interleaving the
 * {@link History} is checked, no flush enters a closed handle, and nothing hangs. The property
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
        // The checks and the storage take one step each: they are not explored.
        .addGuarantee(
            forClasses(HistoryChecker.class.getName(), "nbd.testing.FakeContents")
                .allMethods()
                .treatAsAtomic())
        .addGuarantee(
            forClasses(History.class.getName(), History.Client.class.getName())
                .methods("answered", "judge")
                .treatAsAtomic())
        .addGuarantee(
            forClasses("nbd.testing.ContractBackend$Checked").methods("check").treatAsAtomic())
        .addGuarantee(forClasses(Logger.class.getName()).allMethods().ignore())
        .check(Connections.class);
  }

  /** Three connections, each of which is used by one thread. */
  public static final class Connections {
    private final History history =
        new History(
            FakeBackend.cachingPrivately(History.BLOCK, Scene.WRITABLE),
            UnaryOperator.identity(),
            MultiConnSettings.DEFAULT,
            Runnable::run);
    private final List<History.Client> clients = new ArrayList<>();

    /** Opens them. */
    public Connections() throws IOException {
      for (int i = 0; i < 3; i++) {
        clients.add(history.open(""));
      }
    }

    private void onOpen(int thread, Consumer<History.Client> call) {
      History.Client client = clients.get(thread % clients.size());
      if (client.isOpen()) {
        call.accept(client);
      }
    }

    @Operation
    public void write(@Param(gen = ThreadIdGen.class) int thread) {
      onOpen(thread, client -> client.write(0));
    }

    @Operation
    public void read(@Param(gen = ThreadIdGen.class) int thread) {
      onOpen(thread, client -> client.read(0));
    }

    @Operation
    public void flush(@Param(gen = ThreadIdGen.class) int thread) {
      onOpen(thread, History.Client::flush);
    }

    /** Flushes too, so that flushes are as frequent as writes and reads together. */
    @Operation
    public void flushAgain(@Param(gen = ThreadIdGen.class) int thread) {
      flush(thread);
    }

    /** Closes a connection, perhaps while its last flush fails. */
    @Operation
    public void close(@Param(gen = ThreadIdGen.class) int thread) {
      onOpen(thread, History.Client::close);
    }

    /** Breaks a handle for good. */
    @Operation
    public void breakHandle(@Param(gen = ThreadIdGen.class) int thread) {
      clients.get(thread % clients.size()).below.cut("broken for good", false);
    }

    /** Makes the next flush of a handle fail. */
    @Operation
    public void failNextFlush(@Param(gen = ThreadIdGen.class) int thread) {
      AtomicBoolean fails = new AtomicBoolean(true);
      clients
          .get(thread % clients.size())
          .below
          .hook(
              call -> {
                if (fails.getAndSet(false)) {
                  throw new IOException("broken");
                }
              },
              Command.FLUSH);
    }

    /** Fails if an operation found the promise broken. */
    @Validate
    public void thePromiseWasKept() {
      history
          .violation()
          .ifPresent(
              found -> {
                throw new AssertionError(found);
              });
    }
  }
}
