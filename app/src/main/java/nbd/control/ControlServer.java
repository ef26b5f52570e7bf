package nbd.control;

import java.io.EOFException;
import java.io.IOException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import org.tinylog.Logger;

/**
 * Answers requests on a control socket: a thread accepts, and each client has a thread until it is
 * answered. They are platform threads, since the virtual ones may all be busy with NBD clients.
 */
public final class ControlServer {
  /** The line that the server sends first; the number changes with the form of requests. */
  public static final String GREETING = "nbd-multiconn control 1";

  /** The longest request, in bytes: an export with a name, a description and paths. */
  static final int LONGEST_REQUEST = 64 << 10;

  /** The most clients at a time; others wait to be accepted. */
  private static final int MOST_CLIENTS = 16;

  /** The time that a client has for its request. */
  private static final Duration PATIENCE = Duration.ofSeconds(10);

  private static final Duration PAUSE = Duration.ofMillis(100);

  private final ServerSocketChannel listener;
  private final Map<String, Handler> handlers;
  private final Predicate<SocketChannel> isAllowed;
  private final Duration patience;
  private final Semaphore places = new Semaphore(MOST_CLIENTS);
  private final Thread accepting;

  /** The clients whose request has not come yet. */
  private final Set<SocketChannel> asking = ConcurrentHashMap.newKeySet();

  private ControlServer(
      ServerSocketChannel listener,
      Map<String, Handler> handlers,
      Predicate<SocketChannel> isAllowed,
      Duration patience) {
    this.listener = listener;
    this.handlers = new TreeMap<>(handlers);
    this.isAllowed = isAllowed;
    this.patience = patience;
    this.accepting = Thread.ofPlatform().daemon().name("control").unstarted(this::accept);
  }

  /**
   * Starts to answer.
   *
   * @param listener a Unix socket, bound; closed by {@link #stopAccepting}
   * @param handlers by the first words of requests
   * @param isAllowed whether a client may make requests; others are cut
   */
  public static ControlServer start(
      ServerSocketChannel listener,
      Map<String, Handler> handlers,
      Predicate<SocketChannel> isAllowed) {
    return start(listener, handlers, isAllowed, PATIENCE);
  }

  /** Starts as {@link #start} does, with another limit on the time that a request takes to come. */
  static ControlServer start(
      ServerSocketChannel listener,
      Map<String, Handler> handlers,
      Predicate<SocketChannel> isAllowed,
      Duration patience) {
    ControlServer server = new ControlServer(listener, handlers, isAllowed, patience);
    server.accepting.start();
    return server;
  }

  private void accept() {
    while (listener.isOpen()) {
      places.acquireUninterruptibly();
      boolean started = false;
      try {
        SocketChannel channel = listener.accept();
        Thread.ofPlatform().daemon().name("control client").start(() -> serve(channel));
        started = true;
      } catch (ClosedChannelException closed) {
        return;
      } catch (IOException | OutOfMemoryError failure) {
        Logger.warn("control: a client cannot be accepted: {}", failure.getMessage());
        pause();
      } finally {
        if (!started) {
          places.release();
        }
      }
    }
  }

  /** Waits a moment: what failed, such as a lack of descriptors, may fail again at once. */
  private static void pause() {
    try {
      Thread.sleep(PAUSE);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private void serve(SocketChannel client) {
    try (SocketChannel channel = client) {
      if (!isAllowed.test(channel)) {
        Logger.warn("control: a client of another user is refused");
        return;
      }
      answer(channel);
    } catch (EOFException | ClosedChannelException gone) {
      Logger.debug("control: a client left, or sent no request in time");
    } catch (IOException failure) {
      Logger.debug("control: {}", failure.getMessage());
    } catch (RuntimeException | Error mistake) {
      Logger.error(mistake, "control: ended by a mistake in the server: {}", mistake);
    } finally {
      places.release();
    }
  }

  private void answer(SocketChannel channel) throws IOException {
    Answer.send(channel, GREETING + "\n");
    try {
      String line = request(channel);
      String[] parts = line.strip().split(" ", 2);
      Handler handler = handlers.get(parts[0]);
      if (handler == null) {
        throw new IOException(
            "there is no request \"%s\"; there are %s"
                .formatted(cut(parts[0]), String.join(", ", handlers.keySet())));
      }
      handler.handle(parts.length > 1 ? parts[1] : "", channel);
    } catch (EOFException | ClosedChannelException gone) {
      throw gone;
    } catch (IOException | IllegalArgumentException | IllegalStateException refused) {
      Answer.refused(channel, String.valueOf(refused.getMessage()));
    } catch (RuntimeException | Error mistake) {
      Answer.refused(channel, "a mistake in the server: " + mistake);
      throw mistake;
    }
  }

  private String request(SocketChannel channel) throws IOException {
    asking.add(channel);
    try (Deadline _ = Deadline.of(channel, patience)) {
      if (!listener.isOpen()) {
        throw new ClosedChannelException();
      }
      return LineInput.read(channel, LONGEST_REQUEST);
    } finally {
      asking.remove(channel);
    }
  }

  private static String cut(String word) {
    return word.length() > 20 ? word.substring(0, 20) + "..." : word;
  }

  /** Accepts no more clients; those that have sent a request are answered, others are cut. */
  public void stopAccepting() throws IOException {
    listener.close();
    for (SocketChannel channel : asking) {
      channel.close();
    }
  }

  /**
   * After {@link #stopAccepting}, waits until all clients are answered, or for this long. Several
   * threads may wait.
   *
   * @return whether all are answered
   */
  public boolean awaitAnswers(Duration most) {
    try {
      if (places.tryAcquire(MOST_CLIENTS, most.toNanos(), TimeUnit.NANOSECONDS)) {
        places.release(MOST_CLIENTS);
        return true;
      }
      Logger.debug("control: clients are still waiting for an answer");
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
    return false;
  }
}
