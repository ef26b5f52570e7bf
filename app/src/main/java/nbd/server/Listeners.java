package nbd.server;

import java.io.IOException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import nbd.posix.AdoptedSocket;
import nbd.posix.Descriptor;
import org.tinylog.Logger;

/**
 * A server's listening sockets, each with a thread that accepts. {@link #accept} is called once;
 * any thread may call the other methods.
 */
final class Listeners {
  private final List<ServerSocketChannel> sockets;
  private final Semaphore permits;
  private final int limit;
  private final Consumer<SocketChannel> clients;
  private volatile List<Thread> threads = List.of();

  /**
   * Accepts nobody yet.
   *
   * @param sockets bound, in blocking mode
   * @param permits one for each client that there may be at a time
   * @param limit the number of permits, for the log
   * @param clients gets each client, and with it a permit
   */
  Listeners(
      List<ServerSocketChannel> sockets,
      Semaphore permits,
      int limit,
      Consumer<SocketChannel> clients) {
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

  private void accept(ServerSocketChannel socket, AtomicReference<Error> failed) {
    try {
      accept(new Acceptance(socket, permits, limit, System::nanoTime));
    } catch (Error failure) {
      failed.set(failure);
      close();
    }
  }

  private void accept(Acceptance acceptance) {
    while (true) {
      try {
        clients.accept(acceptance.next());
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
    for (ServerSocketChannel socket : sockets) {
      try {
        socket.close();
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
  List<Descriptor> keep() throws IOException {
    List<Descriptor> kept = new ArrayList<>();
    try {
      for (ServerSocketChannel socket : sockets) {
        kept.add(Descriptor.of(socket));
      }
    } catch (IOException failure) {
      kept.forEach(Descriptor::close);
      throw failure;
    }
    close();
    return kept;
  }

  /** Makes listeners that go on with the sockets that were kept. */
  Listeners again(List<Descriptor> kept) {
    List<ServerSocketChannel> again = new ArrayList<>();
    for (Descriptor socket : kept) {
      try {
        again.add(AdoptedSocket.listener(socket.number()));
        int _ = socket.release();
      } catch (IOException failure) {
        socket.close();
        Logger.error("a listening socket is lost: {}", failure.getMessage());
      }
    }
    return new Listeners(again, permits, limit, clients);
  }
}
