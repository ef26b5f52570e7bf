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
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.testing.ContractBackend;
import nbd.testing.Eventually;
import nbd.testing.Log;
import nbd.testing.MemorySocket;
import nbd.testing.TestCertificates;
import nbd.tls.TlsServer;
import nbd.transmission.Admission;
import org.tinylog.Level;

/**
 * One connection of the server, from its greeting to its end, in the calling thread and without a
 * socket, so that it can be done some thousand times a second.
 */
public final class FuzzedServer {
  private static final Duration LONG = Duration.ofDays(1);

  private static final ScheduledExecutorService TIMER =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("no handshake times out").factory());

  private FuzzedServer() {}

  /** Made when the first test wants it. */
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
   * Serves a peer, and checks what holds whatever it has sent: the connection has ended and its
   * socket is closed, every handle is closed, memory is given back, the storage was called as its
   * contract says, and the server blames no failure on itself.
   *
   * @return what is in the storage then
   */
  public static byte[] serve(Setup setup, MemorySocket.Peer peer)
      throws IOException, InterruptedException {
    Log.clear();
    MemoryBackend storage = new MemoryBackend(setup.size());
    ContractBackend contract = new ContractBackend(new Shaped(storage, setup));
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
    new Connection(1, socket, exports, memory, LONG, TIMER, () -> !setup.polls(), tls).run();

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
    private final BlockSizes sizes;

    /** Used by the thread that begins. */
    private List<Runnable> begun = new ArrayList<>();

    ShapedHandle(Handle next, Setup.Storage storage, BlockSizes sizes) {
      super(next);
      this.storage = storage;
      this.sizes = sizes;
    }

    @Override
    public BlockSizes blockSizes() {
      return sizes;
    }

    @Override
    public boolean readNow(ByteBuffer into, long offset) throws IOException {
      return storage == Setup.Storage.NEAR && next.readNow(into, offset);
    }

    @Override
    public boolean writeNow(ByteBuffer from, long offset) throws IOException {
      return storage == Setup.Storage.NEAR && next.writeNow(from, offset);
    }

    /** A call of the next handle. */
    private interface Call {
      void run() throws IOException;
    }

    private boolean begin(Call call, Completion end) {
      if (storage != Setup.Storage.FAR) {
        return false;
      }
      begun.add(
          () -> {
            try {
              call.run();
              end.done(null);
            } catch (IOException failure) {
              end.done(failure);
            }
          });
      return true;
    }

    @Override
    public boolean beginRead(ByteBuffer into, long offset, Completion end) {
      return begin(() -> next.read(into, offset), end);
    }

    @Override
    public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
      return begin(() -> next.write(from, offset, flags), end);
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
