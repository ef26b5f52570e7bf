package nbd.server;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.Semaphore;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import nbd.threads.ConnectionThreads;
import nbd.transmission.Admission;
import org.tinylog.Logger;

/**
 * The accept loop, with a virtual thread for each connection.
 *
 * <p>{@link #serve} runs on one platform thread; any other thread may call {@link #stop}, once.
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

  /** The permits of a server without a limit; leaves room for those that stopping adds. */
  private static final int UNLIMITED = Integer.MAX_VALUE / 2;

  private final ServerSocketChannel listener;
  private final Exports exports;
  private final Duration handshakeTimeout;
  private final Admission admission;
  private final TlsPolicy tls;
  private final Semaphore permits;
  private final Map<Connection, Thread> connections = new ConcurrentHashMap<>();
  private final ConnectionThreads threads = new ConnectionThreads(connections::size);
  private final ScheduledThreadPoolExecutor timer;
  private final int processors = Runtime.getRuntime().availableProcessors();
  private final UnusedMemory unused;

  /** The number of connections so far; written by the accept loop. */
  private volatile long accepted;

  private volatile boolean stopping;

  /**
   * Serves exports on a socket.
   *
   * @param listener bound
   * @param handshakeTimeout limit on the time that a client takes to choose an export
   * @param memory for requests in flight, in bytes, at least {@link #MINIMUM_MEMORY}: connections
   *     share it, beside half a MiB that each has of its own
   */
  public Server(
      ServerSocketChannel listener,
      Exports exports,
      Duration handshakeTimeout,
      long memory,
      TlsPolicy tls) {
    this(listener, exports, handshakeTimeout, new Admission(memory, STALL), tls);
  }

  Server(
      ServerSocketChannel listener,
      Exports exports,
      Duration handshakeTimeout,
      Admission admission,
      TlsPolicy tls) {
    this.listener = listener;
    this.exports = exports;
    this.handshakeTimeout = handshakeTimeout;
    this.admission = admission;
    this.tls = tls;
    int maxConnections = exports.maxConnections();
    this.permits = new Semaphore(maxConnections == 0 ? UNLIMITED : maxConnections);
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
      unused.look(accepted - connections.size());
    } catch (RuntimeException | Error failure) {
      Logger.error("unused memory could not be given back: {}", failure.toString());
    }
  }

  /** Accepts until {@link #stop}. */
  public void serve() {
    Acceptance acceptance =
        new Acceptance(listener, permits, exports.maxConnections(), System::nanoTime);
    long number = 0;
    while (!stopping) {
      try {
        SocketChannel channel = acceptance.next();
        number++;
        accepted = number;
        start(number, channel, Optional.empty());
      } catch (ClosedChannelException closed) {
        return;
      } catch (IOException failure) {
        acceptance.failed(failure);
      } catch (RuntimeException | OutOfMemoryError failure) {
        // It concerns one connection, or passes; any other Error ends the server.
        acceptance.failed(new IOException(failure.toString(), failure));
      }
    }
  }

  /** Starts a client's connection, which releases the client's permit when it ends. */
  private void start(long number, SocketChannel channel, Optional<PausedClient> resumed) {
    boolean started = false;
    try {
      startThread(number, channel, resumed);
      started = true;
    } catch (IOException goneAlready) {
      Logger.debug("connection {}: {}", number, goneAlready.getMessage());
    } finally {
      if (!started) {
        permits.release();
        close(number, channel);
      }
    }
  }

  private void startThread(long number, SocketChannel channel, Optional<PausedClient> resumed)
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
            exports,
            admission,
            handshakeTimeout,
            timer,
            this::isCrowded,
            threads,
            tls,
            resumed.isPresent() || connections.size() < MANY ? READ_AHEAD : SHORT_READ_AHEAD,
            resumed,
            this::paused);
    Thread thread =
        Thread.ofVirtual()
            .name("connection " + number)
            .unstarted(
                () -> {
                  try {
                    connection.run();
                  } finally {
                    connections.remove(connection);
                    permits.release();
                  }
                });
    connections.put(connection, thread);
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

  private void paused(PausedClient client) {
    throw new IllegalStateException(client.toString());
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

  /** Counts the clients that are connected. */
  public int connections() {
    return connections.size();
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
    permits.release();
    try {
      listener.close();
    } catch (IOException failure) {
      Logger.debug("the listening socket: {}", failure.getMessage());
    }
    connections.keySet().forEach(Connection::stop);
    boolean ended = awaitConnections(patience);
    if (!ended) {
      Logger.warn("{} connections did not end in time and are closed", connections.size());
      connections.keySet().forEach(Connection::close);
      awaitConnections(patience);
    }
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
