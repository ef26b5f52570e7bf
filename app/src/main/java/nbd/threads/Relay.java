package nbd.threads;

import java.io.IOException;
import java.util.Optional;
import java.util.concurrent.Executor;
import java.util.concurrent.FutureTask;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.Semaphore;
import nbd.threads.BlockingCalls.Question;

/**
 * The serving of one connection by platform threads. The thread that has received a request makes
 * the call that waits for storage, and sends the reply. Meanwhile another thread receives, so that
 * a client with several requests in flight waits for none of them. Reads that have arrived together
 * may count as one request, see {@link WaitingCall}.
 *
 * <p>A client that waits for each reply before it sends the next request gains nothing from that
 * other thread, and waking it takes nearly as long as a quick disk. So after {@link #FEW} requests
 * that were alone, the thread of the call keeps the right to receive, and {@link RelayWatch} wakes
 * another one if the call takes longer than one or two milliseconds. One call of {@link #PROBE} is
 * made in the other way, to find out whether the client sends more requests by now. Measured, 4 KiB
 * reads from a disk: 1.3 times the requests with 1 connection x depth 1 and 1.15 with 16 x 1, at
 * 0.7 and 0.8 of the processor time.
 */
final class Relay extends FutureTask<Boolean> {
  private static final int FEW = 8;
  private static final int PROBE = 32;

  /** The most platform threads that wait for storage. */
  private static final int MOST_CALLS = 128;

  /** What the relays of a server share. */
  record Threads(Executor platform, RelayWatch watch, Semaphore calls) {
    Threads(Executor platform, RelayWatch watch) {
      this(platform, watch, new Semaphore(MOST_CALLS));
    }
  }

  private final Question<Optional<WaitingCall>> requests;
  private final Threads threads;
  private final Receiver receiver = new Receiver();

  /** Whether calls that take long are found; written before the first thread is woken. */
  private boolean watched;

  /**
   * Rises by one for each request that was alone, to {@link #FEW} + {@link #PROBE} and then from
   * {@link #FEW} again, and falls by more for others; used by the thread that receives.
   */
  private int alone;

  /** The number of calls that kept the right; written by the thread that receives. */
  private volatile int kept;

  /** The one of these that the watch saw last; its own. */
  private int seen;

  /** The one of these for which the watch woke a thread last; its own. */
  private int woken;

  private Relay(Question<Optional<WaitingCall>> requests, Threads threads) {
    super(() -> true);
    this.requests = requests;
    this.threads = threads;
  }

  /**
   * Serves a connection, as {@link ConnectionThreads#serve} says.
   *
   * @return false if no thread can be had; then it has done nothing
   */
  static boolean serve(Question<Optional<WaitingCall>> requests, Threads threads)
      throws IOException {
    Relay relay = new Relay(requests, threads);
    relay.watched = threads.watch.add(relay);
    try {
      if (!relay.wakes(relay)) {
        return false;
      }
      BlockingCalls.resultOf(relay);
      return true;
    } finally {
      threads.watch.remove(relay);
    }
  }

  /** Wakes a thread; false if none can be had. */
  private boolean wakes(Runnable work) {
    try {
      threads.platform.execute(work);
      return true;
    } catch (RejectedExecutionException | OutOfMemoryError noThread) {
      return false;
    }
  }

  @Override
  public void run() {
    receive(receiver.begin());
  }

  private void receive(boolean begins) {
    try {
      boolean receives = begins;
      while (receives) {
        Optional<WaitingCall> call = requests.ask();
        while (call.isPresent() && !threads.calls.tryAcquire()) {
          call.get().startVirtual();
          call = requests.ask();
        }
        if (call.isEmpty()) {
          set(true);
          return;
        }
        try {
          receives = make(call.get());
        } finally {
          threads.calls.release();
        }
      }
    } catch (Throwable failure) {
      setException(failure);
    }
  }

  /** Makes a call; returns whether this thread has the right to receive afterwards. */
  @SuppressWarnings("NonAtomicVolatileUpdate") // One thread at a time writes it.
  private boolean make(WaitingCall call) {
    if (isClientWaiting(call)) {
      kept++;
      if (receiver.keep()) {
        threads.watch.awake();
        call.call().run();
        return receiver.endKeeping();
      }
    }
    boolean goesOn = receiver.giveUp() && !wakes(this) && receiver.begin();
    call.call().run();
    return goesOn || receiver.takeBack();
  }

  /** Says whether the client seems to send nothing before it has the reply. */
  private boolean isClientWaiting(WaitingCall call) {
    // A request that is answered may still count as one in flight when the next one comes.
    alone = call.isAlone() ? alone + 1 : Math.max(0, alone - FEW / 2);
    if (alone == FEW + PROBE) {
      alone = FEW;
    }
    return watched && call.isAlone() && alone > FEW;
  }

  /**
   * Wakes a thread if the call of the look before still keeps the right; called by the watch.
   *
   * @return whether a call does
   */
  boolean look() {
    if (!receiver.isKept()) {
      return false;
    }
    int call = kept;
    if (call == seen && call != woken && wakes(() -> receive(receiver.takeOver()))) {
      woken = call;
    }
    seen = call;
    return true;
  }
}
