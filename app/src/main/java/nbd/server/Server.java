package nbd.server;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.Semaphore;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import nbd.posix.Descriptor;
import nbd.threads.ConnectionThreads;
import nbd.transmission.Admission;
import org.tinylog.Logger;

/**
 * An accept loop for each listening socket, with a virtual thread for each connection.
 *
 * <p>{@link #serve} waits on one thread; any other thread may call {@link #stop}, once.
 */
public final class Server {
  /** The least memory for requests in flight, in bytes: what the longest request needs. */
  public static final long MINIMUM_MEMORY = Admission.MINIMUM_BYTES;

  /** Holds several replies of the usual length: a Unix socket's buffer does not grow by itself. */
  private static final int UNIX_SEND_BUFFER = 2 << 20;

  /**
   * The time that a client may hold memory without moving data while others wait for memory. Longer
   * than a lost packet takes to be sent again, and much shorter than other clients' timeouts.
   */
  private static final Duration STALL = Duration.ofSeconds(2);

  /** The bytes that a connection reads ahead: a thousand requests, or seven writes of 4 KiB. */
  static final int READ_AHEAD = 32 << 10;

  /** The same while there are {@link #MANY} connections: one write of 4 KiB fits. */
  private static final int SHORT_READ_AHEAD = 8 << 10;

  /**
   * Bounds the memory of idle connections, since each keeps the buffer that it reads ahead into.
   */
  private static final int MANY = 128;

  private static final long WATCH_MILLIS = 250;

  /** Longer than a pause in a burst of connections. */
  private static final long QUIET_SECONDS = 5;

  /** The permits for clients, of which a client that is served already may take one too many. */
  private static final class Permits extends Semaphore {
    private static final long serialVersionUID = 1;

    Permits(int count) {
      super(count, true);
    }

    void takeAnyhow() {
      reducePermits(1);
    }
  }

  /** The permits of a server without a limit; leaves room for those that stopping adds. */
  private static final int UNLIMITED = Integer.MAX_VALUE / 2;

  private volatile Listeners listeners;
  private final Exports exports;
  private final Duration handshakeTimeout;
  private final Admission admission;
  private final TlsPolicy tls;
  private final Permits permits;
  private final Map<Connection, Thread> connections = new ConcurrentHashMap<>();
  private final ConnectionThreads threads = new ConnectionThreads(connections::size);
  private final ScheduledThreadPoolExecutor timer;
  private final int processors = Runtime.getRuntime().availableProcessors();
  private final UnusedMemory unused;

  /** The number of connections so far. */
  private final AtomicLong accepted = new AtomicLong();

  private volatile boolean hasServed;
  private volatile Runnable lastLeft = () -> {};
  private volatile boolean stopping;
  private final Pauses pauses;

  /**
   * Serves exports on sockets.
   *
   * @param handshakeTimeout limit on the time that a client takes to choose an export
   * @param memory for requests in flight, in bytes, at least {@link #MINIMUM_MEMORY}: connections
   *     share it, beside half a MiB that each has of its own
   */
  public Server(
      List<ListeningSocket> listeners,
      Exports exports,
      Duration handshakeTimeout,
      long memory,
      TlsPolicy tls) {
    this(listeners, exports, handshakeTimeout, new Admission(memory, STALL), tls);
  }

  Server(
      List<ListeningSocket> listeners,
      Exports exports,
      Duration handshakeTimeout,
      Admission admission,
      TlsPolicy tls) {
    this.exports = exports;
    this.handshakeTimeout = handshakeTimeout;
    this.admission = admission;
    this.tls = tls;
    this.pauses = new Pauses(this, exports, connections);
    int maxConnections = exports.maxConnections();
    this.permits = new Permits(maxConnections == 0 ? UNLIMITED : maxConnections);
    this.listeners =
        new Listeners(
            listeners,
            permits,
            maxConnections,
            (client, socket) -> start(client, new ExportView(exports, socket.onlyExport())));
    this.timer =
        new ScheduledThreadPoolExecutor(
            1, Thread.ofPlatform().daemon().name("handshake timer").factory());
    timer.setRemoveOnCancelPolicy(true);
    // A connection that is accepted while the server stops needs no deadline: it is stopped, too.
    timer.setRejectedExecutionHandler(new ThreadPoolExecutor.DiscardPolicy());
    Future<?> _ =
        timer.scheduleWithFixedDelay(
            this::cutStalled, WATCH_MILLIS, WATCH_MILLIS, TimeUnit.MILLISECONDS);
    this.unused = new UnusedMemory(admission.buffers());
    Future<?> _ =
        timer.scheduleWithFixedDelay(
            this::giveMemoryBack, QUIET_SECONDS, QUIET_SECONDS, TimeUnit.SECONDS);
  }

  /**
   * Computes the memory for requests in flight of a server without a choice of its own.
   *
   * @param heap the JVM's limit, in bytes
   * @param direct the JVM's limit of memory outside the heap, in bytes
   */
  public static long defaultMemory(long heap, long direct) {
    return Math.max(MINIMUM_MEMORY, Math.min(heap, direct) / 4);
  }

  /** Counts a fixed interval, even if called late: a pause of the machine is no client's fault. */
  private void cutStalled() {
    try {
      admission.disconnectStalled(TimeUnit.MILLISECONDS.toNanos(WATCH_MILLIS));
    } catch (RuntimeException | Error failure) {
      // If this were thrown, the timer would not call again.
      Logger.error("stalled clients could not be looked for: {}", failure.toString());
    }
  }

  private void giveMemoryBack() {
    try {
      unused.look(accepted.get() - connections.size());
    } catch (RuntimeException | Error failure) {
      Logger.error("unused memory could not be given back: {}", failure.toString());
    }
  }

  /**
   * Accepts until {@link #stop} or {@link Paused#leave}, with a thread for each listening socket.
   * An Error in one of them ends all of them, and is thrown here.
   */
  public void serve() {
    pauses.resumeClients();
    do {
      listeners.accept();
    } while (pauses.awaitEnd() && !stopping);
  }

  /**
   * Serves one client that is connected already, instead of those that are accepted, and waits
   * until it has gone.
   */
  public void serveClient(SocketChannel client) {
    permits.acquireUninterruptibly();
    start(client, new ExportView(exports));
    try {
      for (Thread thread : connections.values()) {
        thread.join();
      }
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  /**
   * Sets what to do whenever no client is left, once one has chosen an export; before clients come.
   *
   * @param action called by a connection's thread, which the action must not wait for
   */
  public void whenLastLeaves(Runnable action) {
    lastLeft = action;
  }

  private void start(SocketChannel channel, ExportView found) {
    start(channel, found, Optional.empty());
  }

  /** Starts a client's connection, which releases the client's permit when it ends. */
  private void start(SocketChannel channel, ExportView found, Optional<PausedClient> resumed) {
    long number = accepted.incrementAndGet();
    boolean started = false;
    try {
      if (!stopping) {
        startThread(number, channel, found, resumed);
        started = true;
      }
    } catch (IOException goneAlready) {
      Logger.debug("connection {}: {}", number, goneAlready.getMessage());
    } finally {
      if (!started) {
        permits.release();
        close(number, channel);
        resumed.ifPresent(PausedClient::close);
      }
    }
  }

  private void startThread(
      long number, SocketChannel channel, ExportView found, Optional<PausedClient> resumed)
      throws IOException {
    if (channel.getLocalAddress() instanceof InetSocketAddress) {
      channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
      channel.setOption(StandardSocketOptions.SO_KEEPALIVE, true);
    } else {
      channel.setOption(StandardSocketOptions.SO_SNDBUF, UNIX_SEND_BUFFER);
    }
    Connection connection =
        new Connection(
            number,
            channel,
            found,
            admission,
            handshakeTimeout,
            timer,
            this::isCrowded,
            threads,
            tls,
            resumed.isPresent() || connections.size() < MANY ? READ_AHEAD : SHORT_READ_AHEAD,
            resumed,
            pauses::add);
    Thread thread =
        Thread.ofVirtual()
            .name("connection " + number)
            .unstarted(
                () -> {
                  try {
                    connection.run();
                  } finally {
                    ended(connection);
                  }
                });
    pauses.enter(connection, thread, resumed.isPresent());
    boolean started = false;
    try {
      thread.start();
      started = true;
    } finally {
      if (!started) {
        connections.remove(connection);
      }
    }
    if (stopping) {
      connection.stop();
    }
  }

  private void ended(Connection connection) {
    if (connection.hasExport()) {
      hasServed = true;
    }
    connections.remove(connection);
    permits.release();
    if (hasServed && connections.isEmpty() && !pauses.isUnderWay()) {
      lastLeft.run();
    }
  }

  private static void close(long number, SocketChannel channel) {
    try {
      channel.close();
    } catch (IOException failure) {
      Logger.debug("connection {}: {}", number, failure.getMessage());
    }
  }

  /** Returns false only while there is a processor for each connection, and one for others. */
  private boolean isCrowded() {
    return connections.size() >= processors;
  }

  /**
   * Stops serving, so that another process can go on with the clients: nobody is accepted, every
   * connection stops between two requests, and all that was answered is flushed. Connections with
   * TLS end, since no other process can go on with them; and those that have not chosen an export
   * end soon.
   *
   * @param patience until everything has stopped and is flushed
   * @throws IOException if something does not stop in time, or a flush fails: the server goes on,
   *     as if this had not been called
   */
  public Paused pause(Duration patience) throws IOException {
    return pauses.begin(patience, false);
  }

  /**
   * Stops serving as {@link #pause} does, for a server that ends anyway: waits for the end of
   * another pause before, and closes the connections that do not stop in time.
   *
   * @param patience for each of these, and for the flushes
   */
  public Paused pauseToEnd(Duration patience) throws IOException {
    return pauses.begin(patience, true);
  }

  /**
   * Takes over another server's client, which is served from {@link #serve} on; called before it.
   *
   * @param socket released by the server unless this fails
   * @throws IOException if the client would not find what it was shown
   */
  public void adopt(ClientState state, Descriptor socket) throws IOException {
    pauses.adopt(state, socket);
  }

  /** A client between two servers; whoever gives it away says whose the socket is. */
  public record Client(ClientState state, Descriptor socket) {}

  /** A server that has stopped serving; one of the methods that end that is called, once. */
  public interface Paused {
    /** Returns the listening sockets, in the server's order; they stay the server's. */
    List<ListeningSocket.Kept> listeners();

    /** Returns the clients, whose sockets stay the server's. */
    List<Client> clients();

    /** Goes on serving. */
    void resume();

    /** Leaves the clients to another server, also a later one; {@link Server#serve} returns. */
    void leave();
  }

  /** Stops accepting, and keeps the listening sockets for {@link #listenAgain}. */
  List<ListeningSocket.Kept> keepListeners() throws IOException {
    return listeners.keep();
  }

  /** Goes on with the listening sockets. */
  void listenAgain(List<ListeningSocket.Kept> kept) {
    listeners = listeners.again(kept);
  }

  /** Serves a client again. */
  void serveAgain(SocketChannel channel, PausedClient client) {
    permits.takeAnyhow();
    start(channel, new ExportView(exports), Optional.of(client));
  }

  /** Says whether {@link #stop} was called. */
  boolean isStopping() {
    return stopping;
  }

  /** Counts the clients that are connected. */
  public int connections() {
    return connections.size();
  }

  /** Describes the clients that are connected, in the order in which they came. */
  public List<ConnectionState> connectionStates() {
    return connections.keySet().stream()
        .map(Connection::state)
        .sorted(Comparator.comparingLong(ConnectionState::number))
        .toList();
  }

  /** Counts the clients so far. */
  public long accepted() {
    return accepted.get();
  }

  /** Says whether every listening socket has a thread that accepts, or waits for the limit. */
  public boolean isAccepting() {
    return pauses.isUnderWay() || listeners.areAccepting();
  }

  /** Returns the bytes that requests in flight hold. */
  long memoryInFlight() {
    return admission.held();
  }

  /**
   * Stops accepting, and waits until every connection has finished what it has received.
   *
   * @param patience after which the connections that have not ended are closed
   * @return whether all ended by themselves
   */
  public boolean stop(Duration patience) {
    stopping = true;
    // For the clients that wait for one.
    permits.release(listeners.count());
    listeners.close();
    connections.keySet().forEach(Connection::stop);
    boolean ended = awaitConnections(patience);
    if (!ended) {
      Logger.warn("{} connections did not end in time and are closed", connections.size());
      connections.keySet().forEach(Connection::close);
      awaitConnections(patience);
    }
    pauses.closeClients();
    timer.shutdownNow();
    threads.close();
    return ended;
  }

  private boolean awaitConnections(Duration patience) {
    long deadline = System.nanoTime() + patience.toNanos();
    for (Thread thread : connections.values()) {
      try {
        long left = deadline - System.nanoTime();
        while (thread.getState() == Thread.State.NEW && connections.containsValue(thread)) {
          // The accept loop is about to start it, or to take it out again.
          Thread.sleep(1);
        }
        if (left <= 0
            || (thread.getState() != Thread.State.NEW && !thread.join(Duration.ofNanos(left)))) {
          return false;
        }
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        return false;
      }
    }
    return true;
  }
}
