package nbd.server;

import java.io.IOException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BiConsumer;
import org.tinylog.Logger;

/**
 * A server's listening sockets, each with a thread that accepts. {@link #accept} is called once;
 * any thread may call the other methods.
 */
final class Listeners {
  private final List<ListeningSocket> sockets;
  private final Semaphore permits;
  private final int limit;
  private final BiConsumer<SocketChannel, ListeningSocket> clients;
  private volatile List<Thread> threads = List.of();

  /**
   * Accepts nobody yet.
   *
   * @param permits one for each client that there may be at a time
   * @param limit the number of permits, for the log
   * @param clients gets each client with its socket, and with it a permit
   */
  Listeners(
      List<ListeningSocket> sockets,
      Semaphore permits,
      int limit,
      BiConsumer<SocketChannel, ListeningSocket> clients) {
    this.sockets = List.copyOf(sockets);
    this.permits = permits;
    this.limit = limit;
    this.clients = clients;
  }

  /** Accepts until {@link #close}. An Error in one of the threads ends all, and is thrown here. */
  void accept() {
    AtomicReference<Error> failed = new AtomicReference<>();
    threads =
        sockets.stream()
            .map(
                socket ->
                    Thread.ofPlatform().name("accept").unstarted(() -> accept(socket, failed)))
            .toList();
    try {
      threads.forEach(Thread::start);
      for (Thread thread : threads) {
        thread.join();
      }
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    } finally {
      close();
    }
    if (failed.get() != null) {
      throw failed.get();
    }
  }

  private void accept(ListeningSocket socket, AtomicReference<Error> failed) {
    try {
      accept(socket, new Acceptance(socket.channel(), permits, limit, System::nanoTime));
    } catch (Error failure) {
      failed.set(failure);
      close();
    }
  }

  private void accept(ListeningSocket socket, Acceptance acceptance) {
    while (true) {
      try {
        clients.accept(acceptance.next(), socket);
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

  /** Says whether every socket has a thread that accepts, or waits for the limit. */
  boolean areAccepting() {
    return threads.stream().allMatch(Thread::isAlive);
  }

  /** Counts the sockets. */
  int count() {
    return sockets.size();
  }

  /** Closes the sockets, which ends {@link #accept}. */
  void close() {
    for (ListeningSocket socket : sockets) {
      try {
        socket.channel().close();
      } catch (IOException failure) {
        Logger.debug("the listening socket: {}", failure.getMessage());
      }
    }
  }

  /**
   * Keeps the sockets open without the channels, which are closed: clients wait in the backlog.
   *
   * @return the sockets, in their order, which the caller closes
   * @throws IOException if there are too many descriptors; nothing has changed then
   */
  List<ListeningSocket.Kept> keep() throws IOException {
    List<ListeningSocket.Kept> kept = new ArrayList<>();
    try {
      for (ListeningSocket socket : sockets) {
        kept.add(socket.keep());
      }
    } catch (IOException failure) {
      kept.forEach(each -> each.socket().close());
      throw failure;
    }
    close();
    return kept;
  }

  /** Makes listeners that go on with the sockets that were kept. */
  Listeners again(List<ListeningSocket.Kept> kept) {
    List<ListeningSocket> again = new ArrayList<>();
    for (ListeningSocket.Kept each : kept) {
      try {
        again.add(each.again());
      } catch (IOException failure) {
        each.socket().close();
        Logger.error("a listening socket is lost: {}", failure.getMessage());
      }
    }
    return new Listeners(again, permits, limit, clients);
  }
}
