package nbd.threads;

import java.io.IOException;
import java.util.Optional;
import java.util.concurrent.FutureTask;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.Semaphore;
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

  /** The most platform threads that wait for storage. */
  private static final int MOST_CALLS = 128;

  private final IntSupplier connections;
  private final Semaphore calls = new Semaphore(MOST_CALLS);
  private final BlockingCalls platform = BlockingCalls.ofManyFiles("connection");

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
  public void serve(Question<Optional<Runnable>> requests) throws IOException {
    if (!areMany()) {
      Relay relay = new Relay(requests);
      if (relay.wakes()) {
        BlockingCalls.resultOf(relay);
        return;
      }
    }
    Optional<Runnable> call = requests.ask();
    while (call.isPresent()) {
      startVirtual(call.get());
      call = requests.ask();
    }
  }

  /** Runs a call once, on a virtual thread if one can be started. */
  private static void startVirtual(Runnable call) {
    FutureTask<Boolean> once = new FutureTask<>(call, true);
    try {
      Thread.ofVirtual().start(once);
    } catch (OutOfMemoryError noThread) {
      // The JDK may have queued it.
      once.run();
    }
  }

  /**
   * The serving of one connection by platform threads. The thread that has received a request makes
   * the call that waits for storage, and sends the reply; before, it gives up receiving, which
   * another thread takes over. So a client with one request in flight waits for no thread to wake.
   * Measured, 4 KiB reads from a disk, 1 connection x depth 1: 1.3 times the requests of a thread
   * for each call, and 0.8 of its p99 latency.
   */
  private final class Relay extends FutureTask<Boolean> {
    private final Question<Optional<Runnable>> requests;
    private final Receiver receiver = new Receiver();

    private Relay(Question<Optional<Runnable>> requests) {
      super(() -> true);
      this.requests = requests;
    }

    /** Wakes a thread that takes over; false if none can be had. */
    private boolean wakes() {
      try {
        platform.threads().execute(this);
        return true;
      } catch (RejectedExecutionException | OutOfMemoryError noThread) {
        return false;
      }
    }

    @Override
    public void run() {
      try {
        boolean receives = receiver.begin();
        while (receives) {
          Optional<Runnable> call = requests.ask();
          while (call.isPresent() && !calls.tryAcquire()) {
            startVirtual(call.get());
            call = requests.ask();
          }
          if (call.isEmpty()) {
            set(true);
            return;
          }
          try {
            boolean goesOn = receiver.giveUp() && !wakes() && receiver.begin();
            call.get().run();
            receives = goesOn || receiver.takeBack();
          } finally {
            calls.release();
          }
        }
      } catch (Throwable failure) {
        setException(failure);
      }
    }
  }

  /** Says whether a thread of the other kind should go on with the work; called by the work. */
  public boolean isOtherDue() {
    return Thread.currentThread().isVirtual() != areMany();
  }

  private boolean areMany() {
    return connections.getAsInt() > MOST;
  }

  /** Ends the platform threads as soon as they have no work. */
  @Override
  public void close() {
    platform.close();
  }
}
