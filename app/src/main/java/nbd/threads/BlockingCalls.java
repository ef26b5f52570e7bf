package nbd.threads;

import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.ForkJoinWorkerThread;
import java.util.concurrent.FutureTask;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The calls on a file that may wait for storage, and the threads that make them, so that <b>however
 * many calls wait, and for whichever storage, a carrier is always free for other connections</b>.
 * Otherwise two cold reads would stop every connection on a machine of two processors: since JDK 25
 * no carrier is added for a blocked {@code FileChannel} call (JDK-8329593), and none ever was for
 * calls through java.lang.foreign.
 *
 * <p>A platform thread makes the call ({@link #run}, {@link #ask}) while the virtual thread that
 * needs the result is parked; handing it over costs some 0.03 ms. Or the virtual thread makes it
 * itself, if calls of its kind are mostly short ({@link #reads}, {@link #writes}), see {@link
 * ShortCalls}.
 *
 * <p>Each file has a pool of its own, so that one that hangs does not keep another one waiting.
 * Threads are started when calls wait, and end after some seconds without one.
 */
public final class BlockingCalls implements AutoCloseable {
  /** The most threads of one file: enough for the queues of a fast disk. */
  private static final int THREADS = 64;

  private static final long IDLE_SECONDS = 5;

  /** Calls on the page cache take microseconds; a thread waits up to 20 ms for a busy processor. */
  private static final Duration CACHED = Duration.ofNanos(2_500_000);

  private final ExecutorService threads;
  private final ShortCalls reads;
  private final ShortCalls writes;

  private BlockingCalls(ExecutorService threads, Carriers carriers) {
    this.threads = threads;
    this.reads = new ShortCalls(carriers, CACHED);
    this.writes = new ShortCalls(carriers, CACHED);
  }

  /**
   * Makes the calls of one file.
   *
   * @param name of the threads
   */
  public static BlockingCalls ofFile(String name) {
    return ofFile(name, Carriers.MACHINE);
  }

  static BlockingCalls ofFile(String name, Carriers carriers) {
    AtomicInteger number = new AtomicInteger();
    ForkJoinPool.ForkJoinWorkerThreadFactory factory =
        pool -> {
          ForkJoinWorkerThread thread =
              ForkJoinPool.defaultForkJoinWorkerThreadFactory.newThread(pool);
          thread.setName(name + " " + number.incrementAndGet());
          return thread;
        };
    // Unlike ThreadPoolExecutor this pool starts a thread only if none is idle.
    ForkJoinPool pool =
        new ForkJoinPool(
            THREADS, factory, null, true, 0, THREADS, 1, null, IDLE_SECONDS, TimeUnit.SECONDS);
    return new BlockingCalls(pool, carriers);
  }

  /**
   * Makes calls with any number of threads. Callers keep those on one file few.
   *
   * @param name of the threads
   */
  public static BlockingCalls ofManyFiles(String name) {
    return new BlockingCalls(
        new ThreadPoolExecutor(
            0,
            Integer.MAX_VALUE,
            IDLE_SECONDS,
            TimeUnit.SECONDS,
            new SynchronousQueue<>(),
            Thread.ofPlatform().daemon().name(name + " ", 1).factory()),
        Carriers.MACHINE);
  }

  /** A call that may wait. */
  @FunctionalInterface
  public interface Call {
    /** Makes the call. */
    void run() throws IOException;
  }

  /** A call that may wait, with a result. */
  @FunctionalInterface
  public interface Question<T> {
    /** Makes the call. */
    T ask() throws IOException;
  }

  /** The failure of a call that was not made, since no thread could be started. */
  public static final class NotMadeException extends IOException {
    private static final long serialVersionUID = 1;

    private NotMadeException(Throwable cause) {
      super("no thread could be started: " + cause.getMessage(), cause);
    }
  }

  /** The reads of data in the page cache. */
  public ShortCalls reads() {
    return reads;
  }

  /** The writes into the page cache. */
  public ShortCalls writes() {
    return writes;
  }

  /** The threads that make the calls of {@link #run}. */
  public Executor threads() {
    return threads;
  }

  /**
   * Makes the call, on the caller's thread if that is a platform thread, and returns when it is
   * done.
   *
   * @throws IOException if the call threw it; or {@link NotMadeException}
   */
  public void run(Call call) throws IOException {
    ask(
        () -> {
          call.run();
          return true;
        });
  }

  /**
   * Makes a call with a result; otherwise as {@link #run}.
   *
   * @throws IOException if the call threw it; or {@link NotMadeException}
   */
  public <T> T ask(Question<T> question) throws IOException {
    if (!Thread.currentThread().isVirtual()) {
      return question.ask();
    }
    // The pool's own tasks would throw a copy of the failure, without its message.
    FutureTask<T> result = new FutureTask<>(question::ask);
    try {
      threads.execute(result);
    } catch (OutOfMemoryError noThread) {
      // The call may be queued, and another thread may have begun it.
      if (result.cancel(false)) {
        throw new NotMadeException(noThread);
      }
    }
    return resultOf(result);
  }

  /** Waits, also when interrupted: the call goes on, and uses the caller's buffer. */
  static <T> T resultOf(FutureTask<T> result) throws IOException {
    boolean interrupted = false;
    try {
      while (true) {
        try {
          return result.get();
        } catch (InterruptedException ignored) {
          interrupted = true;
        }
      }
    } catch (ExecutionException failure) {
      switch (failure.getCause()) {
        case IOException failed -> throw failed;
        case RuntimeException unchecked -> throw unchecked;
        case Error error -> throw error;
        case null, default -> throw new IOException(failure);
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  /** Refuses further calls; those that were handed over are made. */
  @Override
  public void close() {
    threads.shutdown();
  }
}
