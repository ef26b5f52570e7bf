package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.stream.Stream;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.storage.Backend;
import nbd.testing.CheckedClient;
import nbd.testing.ContractBackend;
import nbd.testing.Eventually;
import nbd.testing.Log;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import nbd.threads.VirtualThreads;
import nbd.transmission.Admission;
import org.tinylog.Level;

/**
 * A real server in this process for one test. When it is closed it checks that the server has
 * survived: a connection opened before the test still works, a new one does, every handle is
 * closed, memory, timers and sockets are given back, the backend was called as its contract says,
 * and the server blamed no failure on itself.
 */
public final class TestServer implements AutoCloseable {
  private static final Duration PATIENCE = Duration.ofMinutes(1);
  private static final long MEMORY = 256L << 20;

  static {
    warmUp();
  }

  private final long socketsBefore = sockets();
  private final long timersBefore = timers();
  private final ContractBackend contract;
  private final boolean withWitness;
  private final Server server;
  private final SocketAddress address;
  private final Path directory;
  private final Thread accepting;
  private final RawClient witness;
  private boolean stopped;
  private boolean closed;
  private boolean errorsExpected;

  private TestServer(Options options) throws IOException {
    Log.clear();
    contract = new ContractBackend(options.backend);
    withWitness = options.maxConnections == 0 && !options.tls.required();
    directory = Files.createTempDirectory("nbd-test-");
    ServerSocketChannel listener = listen(options.tcp);
    address = listener.getLocalAddress();
    Exports exports =
        new Exports(
            new FuaFilter(contract, FuaMode.PASS),
            options.names,
            options.description,
            options.readOnly,
            options.maxConnections);
    server =
        new Server(
            ListeningSocket.own(List.of(listener)),
            exports,
            options.handshakeTimeout,
            options.memory,
            options.tls);
    accepting = Thread.ofPlatform().name("accept under test").start(server::serve);
    witness = RawClient.connect(address);
    if (withWitness) {
      witness.enter(options.name);
      // The thread that answers it is the one that waits for the witness from now on.
      askWitness();
    } else {
      witness.close();
    }
  }

  private ServerSocketChannel listen(boolean tcp) throws IOException {
    if (tcp) {
      ServerSocketChannel channel = ServerSocketChannel.open();
      return channel.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 1024);
    }
    ServerSocketChannel channel = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    return channel.bind(UnixDomainSocketAddress.of(directory.resolve("socket")), 1024);
  }

  /** The configuration of a server. */
  public static final class Options {
    private final Backend backend;
    private List<String> names = List.of("");
    private String name = "";
    private String description = "";
    private boolean readOnly;
    private boolean tcp;
    private int maxConnections;
    private Duration handshakeTimeout = Duration.ofMinutes(1);
    private Admission memory = new Admission(MEMORY, PATIENCE);
    private TlsPolicy tls = TlsPolicy.OFF;

    private Options(Backend backend) {
      this.backend = backend;
    }

    /** Sets the names of the export. */
    public Options names(String... newNames) {
      names = List.of(newNames);
      name = names.getFirst();
      return this;
    }

    /** Sets the description of the export. */
    public Options description(String text) {
      description = text;
      return this;
    }

    /** Makes the export read-only. */
    public Options readOnly() {
      readOnly = true;
      return this;
    }

    /** Sets whether it listens on TCP instead of a Unix socket. */
    public Options tcp(boolean instead) {
      tcp = instead;
      return this;
    }

    /** Limits the number of clients; then there is no witness, which would count as one. */
    public Options maxConnections(int most) {
      maxConnections = most;
      return this;
    }

    /** Sets the time limit of a handshake. */
    public Options handshakeTimeout(Duration timeout) {
      handshakeTimeout = timeout;
      return this;
    }

    Options memory(Admission shared) {
      memory = shared;
      return this;
    }

    /** Limits the memory for requests in flight. */
    public Options memory(long bytes) {
      return memory(new Admission(bytes, PATIENCE));
    }

    /** Leaves the names of exports to the storage; this is one of them. */
    public Options ownNames(String one) {
      names = List.of();
      name = one;
      return this;
    }

    /** Sets the TLS policy; where TLS is required there is no witness, which would be refused. */
    public Options tls(TlsPolicy policy) {
      tls = policy;
      return this;
    }

    /** Starts the server. */
    public TestServer start() throws IOException {
      return new TestServer(this);
    }
  }

  /** Returns the default configuration: the empty name on a Unix socket. */
  public static Options with(Backend backend) {
    return new Options(backend);
  }

  /** Starts a server of the empty name on a Unix socket. */
  public static TestServer of(Backend backend) throws IOException {
    return with(backend).start();
  }

  /** Returns the address on which it listens. */
  public SocketAddress address() {
    return address;
  }

  /** Connects a client that has sent nothing. */
  public RawClient connect() throws IOException {
    return RawClient.connect(address);
  }

  /** Connects a client, and enters the transmission phase of the empty name. */
  public RawClient client() throws IOException {
    RawClient client = connect();
    client.enter("");
    return client;
  }

  /** Connects a client, and enters the transmission phase with this form of replies. */
  public CheckedClient enter(Replies replies) throws IOException {
    return CheckedClient.enter(connect(), replies, "");
  }

  /** Returns the connection that was opened before the test. */
  public RawClient witness() {
    return witness;
  }

  Server server() {
    return server;
  }

  /** Returns the bytes that requests hold at the moment. */
  public long memoryInFlight() {
    return server.memoryInFlight();
  }

  /** Returns the check between the server and its storage. */
  public ContractBackend contract() {
    return contract;
  }

  /** Allows errors in the log, since the test makes the storage fail. */
  public void expectErrors() {
    errorsExpected = true;
  }

  /** Waits until only so many handles of the storage are open. */
  public void awaitHandles(int left) throws InterruptedException {
    Eventually.isTrue("handles left open", () -> contract.openHandles() == left);
  }

  /** Stops the server, and says whether all connections ended by themselves. */
  public boolean stop(Duration patience) throws InterruptedException {
    stopped = true;
    boolean ended = server.stop(patience);
    assertThat(accepting.join(PATIENCE)).as("the accept loop ended").isTrue();
    return ended;
  }

  @Override
  public void close() throws IOException {
    if (closed) {
      return;
    }
    closed = true;
    try {
      if (!stopped) {
        stillServes();
        Eventually.isTrue("handles are closed", () -> contract.openHandles() == 0);
        Eventually.isTrue("memory is given back", () -> server.memoryInFlight() == 0);
        assertThat(stop(PATIENCE)).as("all connections ended by themselves").isTrue();
      }
      witness.close();
      assertThat(contract.openHandles()).as("handles left open").isZero();
      assertThat(server.memoryInFlight()).as("memory in flight").isZero();
      assertThat(contract.violations()).as("violations of the contract").isEmpty();
      if (!errorsExpected) {
        assertThat(Log.at(Level.ERROR)).as("errors in the log").isEmpty();
      }
      Eventually.isTrue("timers end", () -> timers() <= timersBefore);
      Eventually.isTrue("sockets are closed", () -> sockets() <= socketsBefore);
    } catch (InterruptedException interrupted) {
      throw new AssertionError("it hung", interrupted);
    } finally {
      server.stop(Duration.ZERO);
      witness.close();
      Files.deleteIfExists(directory.resolve("socket"));
      Files.deleteIfExists(directory);
    }
  }

  private void stillServes() throws IOException {
    if (withWitness) {
      askWitness().disconnect();
    }
    try (RawClient fresh = connect()) {
      fresh.hello(3).option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
    }
  }

  private RawClient askWitness() throws IOException {
    return witness.call(RawClient.EINVAL, 0, 0x7fff, 0, 0);
  }

  private static long timers() {
    return Thread.getAllStackTraces().keySet().stream()
        .filter(thread -> thread.getName().equals("handshake timer"))
        .count();
  }

  /** Counts the sockets that this process has open. */
  private static long sockets() {
    try (Stream<Path> descriptors = Files.list(Path.of("/proc/self/fd"))) {
      return descriptors.filter(TestServer::isSocket).count();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  private static boolean isSocket(Path descriptor) {
    try {
      return Files.readSymbolicLink(descriptor).toString().startsWith("socket:");
    } catch (IOException closedMeanwhile) {
      return false;
    }
  }

  /** Opens and closes a socket, since the JDK keeps one of its own from the first one on. */
  private static void warmUp() {
    try (ServerSocketChannel channel = ServerSocketChannel.open()) {
      VirtualThreads.openPollers();
      channel.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
      RawClient.connect(channel.getLocalAddress()).close();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }
}
