package nbd.threads;

import java.io.IOException;
import java.util.Optional;
import java.util.concurrent.RejectedExecutionException;
import java.util.function.IntSupplier;
import nbd.threads.BlockingCalls.NotMadeException;
import nbd.threads.BlockingCalls.Question;

/**
 * The threads that do the work of a server's connections. Each connection has a virtual thread.
 * While connections are few, that one waits for a platform thread, which does the work.
 *
 * <p>Measured, 4 KiB cached reads on two processors: platform threads serve 1.3 to 1.7 times the
 * requests (1 connection x depth 1, 4 x 8, 16 x 4), with a third of the p99 latency, also beside
 * computing processes. The kernel wakes the thread that waits for the client, and no other one
 * first; and it gives a thread for each connection more of a busy machine than one for each
 * processor.
 *
 * <p>While connections are many, virtual threads do the work of all: a few without a platform
 * thread would get next to nothing of a busy machine, and each platform thread takes memory.
 */
public final class ConnectionThreads implements AutoCloseable {
  /** The most connections that have platform threads. */
  public static final int MOST = 128;

  private final IntSupplier connections;
  private final BlockingCalls platform = BlockingCalls.ofManyFiles("connection");
  private final RelayWatch watch = new RelayWatch();
  private final Relay.Threads relays = new Relay.Threads(platform.threads(), watch);

  /**
   * Starts no thread yet.
   *
   * @param connections counts the connections of the server
   */
  public ConnectionThreads(IntSupplier connections) {
    this.connections = connections;
  }

  /**
   * Does a part of a connection's work; called by its virtual thread. The work returns soon after
   * {@link #isOtherDue} has become true.
   */
  public <T> T run(Question<T> work) throws IOException {
    if (areMany()) {
      return work.ask();
    }
    try {
      return platform.ask(work);
    } catch (NotMadeException | RejectedExecutionException noThread) {
      return work.ask();
    }
  }

  /**
   * Serves a connection's requests; called by its virtual thread.
   *
   * @param requests serves them until none will come or {@link #isOtherDue}, and returns empty
   *     then; or until one of them has to wait for storage, and returns the call that waits. One
   *     thread at a time asks it.
   */
  public void serve(Question<Optional<WaitingCall>> requests) throws IOException {
    if (!areMany() && Relay.serve(requests, relays)) {
      return;
    }
    Optional<WaitingCall> call = requests.ask();
    while (call.isPresent()) {
      call.get().startVirtual();
      call = requests.ask();
    }
  }

  /** Says whether a thread of the other kind should go on with the work; called by the work. */
  public boolean isOtherDue() {
    return Thread.currentThread().isVirtual() != areMany();
  }

  private boolean areMany() {
    return connections.getAsInt() > MOST;
  }

  /** Ends the platform threads as soon as they have no work, and the watch over them. */
  @Override
  public void close() {
    platform.close();
    watch.close();
  }
}
