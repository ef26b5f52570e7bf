package nbd.server;

import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;
import nbd.posix.AdoptedSocket;
import nbd.posix.Descriptor;
import nbd.protocol.Printable;
import nbd.transmission.OpenExport;
import org.tinylog.Logger;

/**
 * The pauses of a server, in which its clients have no connections, so that another process can go
 * on with them; and the clients that nobody serves.
 *
 * <p>Invariant: while the server is settled, it has no connection, so the clients here are all its
 * clients, and none of their requests is in flight. It settles under the lock, once no connection
 * is left. From then on {@link #enter}, under the same lock, refuses new clients; and the clients
 * here get connections again only after the pause, which is no longer settled then. After a server
 * has left its clients to another one, it stays settled.
 *
 * <p>Any thread may call; {@link #adopt} only before the server serves.
 */
final class Pauses {
  /** The time to choose an export when the server pauses; clients that serve people take longer. */
  private static final long HANDSHAKE_NANOS = 250_000_000;

  /** The interval for looking whether the connections have paused. */
  private static final long LOOK_NANOS = 500_000;

  private final Server server;
  private final Exports exports;
  private final Map<Connection, Thread> connections;

  /** Guards the fields below. */
  private final ReentrantLock lock = new ReentrantLock();

  private final Condition ended = lock.newCondition();

  /** True from {@link #begin} to {@link Pause#resume} or {@link Pause#leave}. */
  private boolean pausing;

  /** True while the server pauses and has no connections: none begins. */
  private boolean settled;

  /** True once the clients are another server's. */
  private boolean left;

  /** The clients that have paused, or come from another server; nobody serves them. */
  private final List<PausedClient> clients = new ArrayList<>();

  /**
   * Makes it for a server that does not pause.
   *
   * @param connections the server's, which {@link #enter} adds to
   */
  Pauses(Server server, Exports exports, Map<Connection, Thread> connections) {
    this.server = server;
    this.exports = exports;
    this.connections = connections;
  }

  /** Says whether the server pauses. */
  boolean isUnderWay() {
    lock.lock();
    try {
      return pausing;
    } finally {
      lock.unlock();
    }
  }

  /** Waits while the server pauses; returns false if its clients are another server's then. */
  boolean awaitEnd() {
    lock.lock();
    try {
      while (pausing) {
        ended.awaitUninterruptibly();
      }
      return !left;
    } finally {
      lock.unlock();
    }
  }

  /**
   * Counts a connection in, unless the server has stopped serving. While it is about to, no client
   * gets the place of one that pauses.
   */
  void enter(Connection connection, Thread thread, boolean isResumed) throws IOException {
    lock.lock();
    try {
      if (!isResumed && (settled || (pausing && exports.maxConnections() > 0))) {
        throw new IOException("another server takes over");
      }
      connections.put(connection, thread);
    } finally {
      lock.unlock();
    }
  }

  /**
   * Begins a pause.
   *
   * @param toEnd whether it is {@link Server#pauseToEnd}, not {@link Server#pause}
   */
  Server.Paused begin(Duration patience, boolean toEnd) throws IOException {
    lock.lock();
    try {
      long most = toEnd ? patience.toNanos() : 0;
      while (pausing && most > 0) {
        most = ended.awaitNanos(most);
      }
      if (pausing || server.isStopping() || left) {
        throw new IOException(
            pausing ? "another take-over is under way" : "the server is about to end");
      }
      pausing = true;
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", interrupted);
    } finally {
      lock.unlock();
    }
    boolean done = false;
    Pause made = new Pause(List.of());
    try {
      made = new Pause(server.keepListeners());
      long deadline = System.nanoTime() + patience.toNanos();
      awaitPause(deadline, toEnd ? patience : Duration.ZERO);
      flushPaused(toEnd ? System.nanoTime() + patience.toNanos() : deadline);
      done = true;
      return made;
    } finally {
      if (!done) {
        made.resume();
      }
    }
  }

  /**
   * Waits until all connections have paused.
   *
   * @param more the time that those have to end which are closed at the deadline; if it is 0, none
   *     is
   */
  private void awaitPause(long deadline, Duration more) throws IOException {
    long begun = System.nanoTime();
    boolean cuts = !more.isZero();
    while (!isSettled()) {
      long now = System.nanoTime();
      if (cuts && now > deadline) {
        cutLate();
        awaitPause(now + more.toNanos(), Duration.ZERO);
        return;
      }
      if (now > deadline) {
        throw new IOException(
            "%d connections have not come to the end of a request in time"
                .formatted(connections.size()));
      }
      for (Connection connection : connections.keySet()) {
        if (now - begun > HANDSHAKE_NANOS && connection.isServingNothing()) {
          connection.close();
        } else {
          connection.pause();
        }
      }
      LockSupport.parkNanos(LOOK_NANOS);
    }
  }

  private void cutLate() {
    Logger.warn(
        "{} connections have not come to the end of a request in time, and are closed",
        connections.size());
    connections.keySet().forEach(Connection::close);
  }

  /** Says whether no connection is left; from then on none begins. */
  private boolean isSettled() {
    lock.lock();
    try {
      settled = connections.isEmpty();
      return settled;
    } finally {
      lock.unlock();
    }
  }

  private void flushPaused(long deadline) throws IOException {
    Map<PausedClient, FutureTask<Boolean>> flushes = new LinkedHashMap<>();
    for (PausedClient client : clients()) {
      FutureTask<Boolean> flush =
          new FutureTask<>(
              () -> {
                client.flush();
                return true;
              });
      flushes.put(client, flush);
      Thread.ofVirtual().name("flush before the take-over").start(flush);
    }
    List<IOException> failures = new ArrayList<>();
    flushes.forEach((client, flush) -> awaitFlush(client, flush, deadline, failures));
    if (!failures.isEmpty()) {
      throw failures.getFirst();
    }
  }

  /**
   * Waits for a flush. The client of one that fails is cut: it must not take the success of its own
   * next flush for that of this one.
   */
  private void awaitFlush(
      PausedClient client, FutureTask<Boolean> flush, long deadline, List<IOException> failures) {
    try {
      flush.get(Math.max(0, deadline - System.nanoTime()), TimeUnit.NANOSECONDS);
    } catch (TimeoutException late) {
      failures.add(new IOException("a flush does not end in time", late));
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      failures.add(new IOException("interrupted", interrupted));
    } catch (ExecutionException failed) {
      cut(client);
      failures.add(new IOException("a flush failed: " + failed.getCause(), failed));
    }
  }

  private void cut(PausedClient client) {
    lock.lock();
    try {
      clients.remove(client);
    } finally {
      lock.unlock();
    }
    client.close();
  }

  private List<PausedClient> clients() {
    lock.lock();
    try {
      return List.copyOf(clients);
    } finally {
      lock.unlock();
    }
  }

  /** Gets a client whose connection has paused. */
  void add(PausedClient client) {
    lock.lock();
    try {
      clients.add(client);
      // The wish for the pause may have been taken back meanwhile.
      resumeClients();
    } finally {
      lock.unlock();
    }
  }

  /** Serves the clients that nobody serves. */
  void resumeClients() {
    lock.lock();
    try {
      if (!pausing) {
        List<PausedClient> waiting = List.copyOf(clients);
        clients.clear();
        waiting.forEach(this::resume);
      }
    } finally {
      lock.unlock();
    }
  }

  private void resume(PausedClient client) {
    SocketChannel channel;
    try {
      channel = AdoptedSocket.connected(client.socket().number());
      int _ = client.socket().release();
    } catch (IOException gone) {
      Logger.debug("a client has gone: {}", gone.getMessage());
      client.close();
      return;
    }
    server.serveAgain(channel, client);
  }

  /** Adds another server's client, as {@link Server#adopt} says. */
  void adopt(ClientState state, Descriptor socket) throws IOException {
    int most = exports.maxConnections();
    if (most > 0 && clients.size() >= most) {
      throw new IOException("there are more clients than the %d that may be".formatted(most));
    }
    if (!exports.mayKnow(state.export())) {
      throw new IOException(
          "there is no export \"%s\" any more".formatted(Printable.name(state.export())));
    }
    Seat seat = new Seat();
    OpenExport opened = exports.open(state.export(), seat);
    boolean agreed = false;
    try {
      OpenExport same = state.agreedWith(opened);
      clients.add(new PausedClient(socket.handedOn(), same, seat, state.ahead().duplicate()));
      agreed = true;
    } finally {
      if (!agreed) {
        opened.close();
      }
    }
  }

  private final class Pause implements Server.Paused {
    private final List<ListeningSocket.Kept> kept;

    Pause(List<ListeningSocket.Kept> kept) {
      this.kept = kept;
    }

    @Override
    public List<ListeningSocket.Kept> listeners() {
      return List.copyOf(kept);
    }

    @Override
    public List<Server.Client> clients() {
      return Pauses.this.clients().stream()
          .map(
              each -> new Server.Client(ClientState.of(each.export(), each.ahead()), each.socket()))
          .toList();
    }

    @Override
    public void resume() {
      lock.lock();
      try {
        pausing = false;
        settled = false;
        connections.keySet().forEach(Connection::withdrawPause);
        if (server.isStopping()) {
          closeClients();
        } else {
          if (!kept.isEmpty()) {
            server.listenAgain(kept);
          }
          resumeClients();
        }
        ended.signalAll();
      } finally {
        lock.unlock();
      }
    }

    @Override
    public void leave() {
      lock.lock();
      try {
        pausing = false;
        left = true;
        closeClients();
        kept.forEach(each -> each.socket().close());
        ended.signalAll();
      } finally {
        lock.unlock();
      }
    }
  }

  /** Closes the clients that nobody serves. */
  void closeClients() {
    lock.lock();
    try {
      clients.forEach(PausedClient::close);
      clients.clear();
    } finally {
      lock.unlock();
    }
  }
}
