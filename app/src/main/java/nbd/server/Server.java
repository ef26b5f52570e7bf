package nbd.server;

import java.io.IOException;
import java.net.StandardSocketOptions;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.Semaphore;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import nbd.transmission.Admission;
import org.tinylog.Logger;

/**
 * The accept loop: a virtual thread for each connection.
 *
 * <p>{@link #serve} runs on one platform thread; {@link #stop} may be called once by any other.
 */
public final class Server {
  /** The memory in bytes without which the longest request could not be served. */
  public static final long MINIMUM_MEMORY = Admission.MINIMUM_BYTES;

  /** For Unix sockets, whose buffers do not grow by themselves: several of the usual replies. */
  private static final int UNIX_SEND_BUFFER = 2 << 20;

  /**
   * How long a client that holds memory may move nothing while others wait for it: longer than a
   * packet that is lost takes, and much shorter than what makes the others' clients give up.
   */
  private static final Duration STALL = Duration.ofSeconds(2);

  private static final long WATCH_MILLIS = 250;

  /** A semaphore that is released when the server stops must not overflow. */
  private static final int UNLIMITED = Integer.MAX_VALUE / 2;

  private final ServerSocketChannel listener;
  private final Exports exports;
  private final Duration handshakeTimeout;
  private final Admission admission;
  private final TlsPolicy tls;
  private final Semaphore places;
  private final Map<Connection, Thread> connections = new ConcurrentHashMap<>();
  private final ScheduledThreadPoolExecutor timer;
  private final int processors = Runtime.getRuntime().availableProcessors();
  private volatile boolean stopping;

  /**
   * Serves exports on a socket.
   *
   * @param listener bound
   * @param handshakeTimeout how long a client may take to choose an export
   * @param memory for requests in flight, in bytes, at least {@link #MINIMUM_MEMORY}: what all
   *     connections share beyond half a MiB that each one has for itself
   * @param tls whether clients may, or have to, continue inside TLS
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
    this.places = new Semaphore(maxConnections == 0 ? UNLIMITED : maxConnections);
    this.timer =
        new ScheduledThreadPoolExecutor(
            1, Thread.ofPlatform().daemon().name("handshake timer").factory());
    timer.setRemoveOnCancelPolicy(true);
    // A connection that was accepted while the server stopped is closed without a deadline.
    timer.setRejectedExecutionHandler(new ThreadPoolExecutor.DiscardPolicy());
    watch();
  }

  @SuppressWarnings("FutureReturnValueIgnored") // it lasts as long as the timer
  private void watch() {
    timer.scheduleWithFixedDelay(
        this::cutStalled, WATCH_MILLIS, WATCH_MILLIS, TimeUnit.MILLISECONDS);
  }

  /** Counts the interval, however late it is called: a machine that pauses is no client's fault. */
  private void cutStalled() {
    try {
      admission.disconnectStalled(TimeUnit.MILLISECONDS.toNanos(WATCH_MILLIS));
    } catch (RuntimeException | Error failure) {
      // The timer would not call again.
      Logger.error("stalled clients could not be looked for: {}", failure.toString());
    }
  }

  /** Accepts until {@link #stop}. */
  public void serve() {
    Acceptance acceptance =
        new Acceptance(listener, places, exports.maxConnections(), System::nanoTime);
    long number = 0;
    while (!stopping) {
      boolean taken = false;
      boolean started = false;
      try {
        SocketChannel channel = acceptance.next();
        taken = true;
        number++;
        started = start(number, channel);
      } catch (ClosedChannelException closed) {
        return;
      } catch (IOException failure) {
        acceptance.failed(failure);
      } catch (RuntimeException | OutOfMemoryError failure) {
        // It is about one connection, or passes; any other Error ends the server.
        acceptance.failed(new IOException(failure.toString(), failure));
      } finally {
        if (taken && !started) {
          places.release();
        }
      }
    }
  }

  private boolean start(long number, SocketChannel channel) {
    boolean started = false;
    try {
      startThread(number, channel);
      started = true;
    } catch (IOException goneAlready) {
      Logger.debug("connection {}: {}", number, goneAlready.getMessage());
    } finally {
      if (!started) {
        close(number, channel);
      }
    }
    return started;
  }

  private void startThread(long number, SocketChannel channel) throws IOException {
    if (channel.getLocalAddress() instanceof java.net.InetSocketAddress) {
      channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
      channel.setOption(StandardSocketOptions.SO_KEEPALIVE, true);
    } else {
      channel.setOption(StandardSocketOptions.SO_SNDBUF, UNIX_SEND_BUFFER);
    }
    Connection connection =
        new Connection(
            number, channel, exports, admission, handshakeTimeout, timer, this::isCrowded, tls);
    Thread thread =
        Thread.ofVirtual()
            .name("connection " + number)
            .unstarted(
                () -> {
                  try {
                    connection.run();
                  } finally {
                    connections.remove(connection);
                    places.release();
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

  private static void close(long number, SocketChannel channel) {
    try {
      channel.close();
    } catch (IOException failure) {
      Logger.debug("connection {}: {}", number, failure.getMessage());
    }
  }

  /** True when connections may outnumber carriers; else one is free for other work. */
  private boolean isCrowded() {
    return connections.size() >= processors;
  }

  /** How many clients are connected at the moment. */
  public int connections() {
    return connections.size();
  }

  /** The bytes that slow and large requests hold at the moment. */
  long memoryInFlight() {
    return admission.held();
  }

  /**
   * Stops accepting, lets every connection finish what it has received, and returns when all have
   * ended.
   *
   * @param patience after which connections whose clients do not take their replies are cut
   * @return whether all ended by themselves
   */
  public boolean stop(Duration patience) {
    stopping = true;
    places.release();
    try {
      listener.close();
    } catch (IOException failure) {
      Logger.debug("the listening socket: {}", failure.getMessage());
    }
    connections.keySet().forEach(Connection::stop);
    boolean ended = awaitConnections(patience);
    if (!ended) {
      Logger.warn("{} connections did not end in time and are cut", connections.size());
      connections.keySet().forEach(Connection::close);
      awaitConnections(patience);
    }
    timer.shutdownNow();
    return ended;
  }

  private boolean awaitConnections(Duration patience) {
    long deadline = System.nanoTime() + patience.toNanos();
    for (Thread thread : connections.values()) {
      try {
        long left = deadline - System.nanoTime();
        while (thread.getState() == Thread.State.NEW && connections.containsValue(thread)) {
          // Accepted at this moment: it starts at once, or is taken out again.
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
