package nbd.threads;

import java.io.IOException;
import java.util.concurrent.Callable;
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
 * Decides which thread makes a call on a file that may wait for storage, so that <b>however many
 * calls wait for storage, and whichever storage, a carrier is always free for everybody else</b>.
 * Without it two cold reads would stop every connection on a machine of two cores: since JDK 25 a
 * blocked {@code FileChannel} call is not compensated by another carrier (JDK-8329593), and calls
 * through java.lang.foreign never were.
 *
 * <p>A call is made by a platform thread ({@link #run}, {@link #ask}), while the virtual thread
 * that needs the result is parked; handing it over costs some 0.03 ms. Or the virtual thread makes
 * it itself, if it is of a kind that is mostly short ({@link #reads}, {@link #writes}, {@link
 * #durableWrites}), has been so lately, and gets a permit to block a carrier ({@link Carriers}).
 *
 * <p>A file has a pool of its own, so that one that hangs does not keep another one waiting.
 * Threads are started when calls wait and end after some seconds without one.
 */
public final class BlockingCalls implements AutoCloseable {
  /** What one file keeps busy: enough for the queues of a fast disk. */
  private static final int THREADS = 64;

  private static final long IDLE_SECONDS = 5;

  private final ExecutorService threads;
  private final ShortCalls reads;
  private final ShortCalls writes;
  private final TypicalTime durableWritesTime = new TypicalTime();
  private final ShortCalls durableWrites;

  private BlockingCalls(ExecutorService threads, Carriers carriers) {
    this.threads = threads;
    this.reads = new ShortCalls(carriers, new SlowCalls(System.nanoTime()));
    this.writes = new ShortCalls(carriers, new SlowCalls(System.nanoTime()));
    this.durableWrites = new ShortCalls(carriers, durableWritesTime);
  }

  /**
   * Of one file.
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
    // Unlike the ordinary thread pool this one starts a thread only if none is idle.
    ForkJoinPool pool =
        new ForkJoinPool(
            THREADS, factory, null, true, 0, THREADS, 1, null, IDLE_SECONDS, TimeUnit.SECONDS);
    return new BlockingCalls(pool, carriers);
  }

  /**
   * Of many files, whose callers see to it that each file has few at a time: any number of threads.
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
    /** Makes it. */
    void run() throws IOException;
  }

  /** A call that may wait, and answers. */
  @FunctionalInterface
  public interface Question<T> {
    /** Makes it. */
    T ask() throws IOException;
  }

  /** A call was not made, since no thread could be started for it. */
  public static final class NotMadeException extends IOException {
    private static final long serialVersionUID = 1;

    private NotMadeException(Throwable cause) {
      super("no thread could be started: " + cause.getMessage(), cause);
    }
  }

  /** Reads of what is in the page cache. */
  public ShortCalls reads() {
    return reads;
  }

  /** Writes into the page cache. */
  public ShortCalls writes() {
    return writes;
  }

  /**
   * Writes through to the disk, by channels of the JDK that were opened for that: while a virtual
   * thread waits in one of these, the JDK adds a carrier.
   */
  public ShortCalls durableWrites() {
    return durableWrites;
  }

  /** Whether writes through to the disk have taken little time lately. */
  public boolean areDurableWritesQuick() {
    return durableWritesTime.isShort();
  }

  /** Takes note of a write through to the disk that {@link #run} has made. */
  public void wroteDurably(long nanos) {
    durableWritesTime.took(nanos);
  }

  /** The threads by which {@link #run} makes calls. */
  public Executor threads() {
    return threads;
  }

  /**
   * Makes the call, on the caller's thread if that is a platform thread, and returns when it is
   * done.
   *
   * @throws IOException what the call threw; or {@link NotMadeException}
   */
  public void run(Call call) throws IOException {
    ask(
        () -> {
          call.run();
          return true;
        });
  }

  /**
   * Makes a call that answers; otherwise as {@link #run}.
   *
   * @throws IOException what the call threw; or {@link NotMadeException}
   */
  public <T> T ask(Question<T> question) throws IOException {
    if (!Thread.currentThread().isVirtual()) {
      return question.ask();
    }
    Callable<T> task = question::ask;
    // Not by the pool's own submit: its tasks throw a copy of what failed, without the message.
    FutureTask<T> result = new FutureTask<>(task);
    try {
      threads.execute(result);
    } catch (OutOfMemoryError noThread) {
      // It may be queued, and another thread may have begun it.
      if (result.cancel(false)) {
        throw new NotMadeException(noThread);
      }
    }
    return resultOf(result);
  }

  private static <T> T resultOf(FutureTask<T> result) throws IOException {
    boolean interrupted = false;
    try {
      while (true) {
        try {
          return result.get();
        } catch (InterruptedException ignored) {
          // The call goes on, and so does the caller's claim on the buffer: wait for it.
          interrupted = true;
        } catch (ExecutionException failure) {
          throw rethrown(failure);
        }
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  private static IOException rethrown(ExecutionException failure) {
    return switch (failure.getCause()) {
      case IOException failed -> failed;
      case RuntimeException unchecked -> throw unchecked;
      case Error error -> throw error;
      case null, default -> new IOException(failure);
    };
  }

  /** Starts no call any more; those that were handed over are made. */
  @Override
  public void close() {
    threads.shutdown();
  }
}
