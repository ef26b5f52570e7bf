package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.fuzz.Setup;
import nbd.memory.MemoryBackend;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.testing.BitmapBackend;
import nbd.testing.ContractBackend;
import nbd.testing.Eventually;
import nbd.testing.Log;
import nbd.testing.MemorySocket;
import nbd.testing.TestCertificates;
import nbd.threads.ConnectionThreads;
import nbd.tls.TlsServer;
import nbd.transmission.Admission;
import org.tinylog.Level;

/**
 * One connection of the server, from its greeting to its end, in the calling thread and without a
 * real socket, so that some thousand of them run in a second.
 */
public final class FuzzedServer {
  private static final Duration LONG = Duration.ofDays(1);

  private static final ScheduledExecutorService TIMER =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("no handshake times out").factory());

  private static final ConnectionThreads FEW = new ConnectionThreads(() -> 1);
  private static final ConnectionThreads MANY =
      new ConnectionThreads(() -> ConnectionThreads.MOST + 1);

  private FuzzedServer() {}

  /** The TLS policy, which is made when a test first uses it. */
  private static final class Tls {
    static final TlsPolicy OFFERED = new TlsPolicy(Optional.of(server()), false);

    private static TlsServer server() {
      try {
        return TlsServer.load(TestCertificates.GOOD, false);
      } catch (IOException failure) {
        throw new UncheckedIOException(failure);
      }
    }
  }

  /**
   * Serves a peer, and checks that, whatever it has sent, the connection has ended and its socket
   * is closed, every handle is closed, memory is given back, the storage was called as its contract
   * says, and the server blames no failure on itself.
   *
   * @return the storage's content afterwards
   */
  public static byte[] serve(Setup setup, MemorySocket.Peer peer)
      throws IOException, InterruptedException {
    Log.clear();
    MemoryBackend storage = new MemoryBackend(setup.size());
    ContractBackend contract =
        new ContractBackend(new BitmapBackend(new Shaped(storage, setup), setup::bitmapOf));
    Exports exports =
        new Exports(
            new FuaFilter(contract, FuaMode.PASS),
            Setup.NAMES,
            Setup.DESCRIPTION,
            setup.readOnly(),
            0);
    Admission memory = new Admission(Admission.MINIMUM_BYTES + setup.memory(), LONG);
    MemorySocket socket = new MemorySocket(peer, setup.most());
    TlsPolicy tls = setup.tls() ? Tls.OFFERED : TlsPolicy.OFF;
    new Connection(
            1,
            socket,
            new ExportView(exports),
            memory,
            LONG,
            TIMER,
            setup::many,
            setup.many() ? MANY : FEW,
            tls,
            Server.READ_AHEAD,
            Optional.empty(),
            _ -> {})
        .run();

    assertThat(Log.at(Level.ERROR)).as("errors in the log").isEmpty();
    assertThat(socket.isClosed()).as("the socket is closed").isTrue();
    assertThat(contract.openHandles()).as("handles left open").isZero();
    assertThat(contract.violations()).as("violations of the contract").isEmpty();
    // A thread that has told the end of its request may still be giving its memory back.
    Eventually.isTrue("memory is given back", () -> memory.held() == 0);
    try (Handle handle = storage.open("", true)) {
      ByteBuffer content = ByteBuffer.allocate((int) setup.size());
      handle.read(content, 0);
      return content.array();
    }
  }

  /** Storage with the block sizes of the setup, and as slow as it says. */
  private static final class Shaped extends FilterBackend {
    private final Setup setup;
    private final BlockSizes sizes;

    Shaped(Backend next, Setup setup) {
      super(next);
      this.setup = setup;
      this.sizes = new BlockSizes(setup.minimum(), 4096, Setup.MAXIMUM_PAYLOAD);
    }

    @Override
    public Handle open(String exportName, boolean readOnly) throws IOException {
      return new ShapedHandle(next.open(exportName, readOnly), setup.storage(), sizes);
    }
  }

  private static final class ShapedHandle extends FilterHandle {
    private final Setup.Storage storage;

    /** The operations begun and not yet pushed; used by the connection's thread only. */
    private List<Runnable> begun = new ArrayList<>();

    ShapedHandle(Handle next, Setup.Storage storage, BlockSizes sizes) {
      super(next, facts(next.facts(), sizes));
      this.storage = storage;
    }

    private static ExportFacts facts(ExportFacts facts, BlockSizes sizes) {
      return new ExportFacts(
          facts.size(), sizes, facts.capabilities(), facts.description(), facts.identity());
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      boolean hasData = operation.command() == Command.READ || operation.command() == Command.WRITE;
      return switch (patience) {
        case AT_ONCE ->
            storage == Setup.Storage.NEAR
                ? next.perform(operation, patience, end)
                : Outcome.DECLINED;
        case LATER -> {
          if (!hasData || storage != Setup.Storage.FAR) {
            yield Outcome.DECLINED;
          }
          begun.add(() -> end(operation, end));
          yield Outcome.BEGUN;
        }
        case WAIT -> next.perform(operation, patience, end);
      };
    }

    private void end(Operation operation, Completion end) {
      try {
        next.run(operation);
        end.done(null);
      } catch (IOException failure) {
        end.done(failure);
      }
    }

    @Override
    public void push() {
      if (!begun.isEmpty()) {
        List<Runnable> pushed = begun.reversed();
        begun = new ArrayList<>();
        Thread.ofVirtual().start(() -> pushed.forEach(Runnable::run));
      }
    }
  }
}
