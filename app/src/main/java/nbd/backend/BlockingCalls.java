package nbd.backend;

import java.io.IOException;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.ForkJoinWorkerThread;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Runs system calls that may wait for a disk on platform threads, and parks the virtual thread that
 * needs the result. Without it two cold reads would stop every connection on a machine of two
 * cores: since JDK 25 a blocked {@code FileChannel} call is not compensated by another carrier
 * (JDK-8329593), and calls through java.lang.foreign never were.
 *
 * <p>A file has a pool of its own, so that one that hangs does not keep another one waiting.
 * Threads are started when calls wait and end after some seconds without one.
 */
final class BlockingCalls implements AutoCloseable {
  /** What one file keeps busy: enough for the queues of a fast disk. */
  private static final int THREADS = 64;

  private static final long IDLE_SECONDS = 5;

  private final ForkJoinPool threads;

  BlockingCalls(String name) {
    AtomicInteger number = new AtomicInteger();
    ForkJoinPool.ForkJoinWorkerThreadFactory factory =
        pool -> {
          ForkJoinWorkerThread thread =
              ForkJoinPool.defaultForkJoinWorkerThreadFactory.newThread(pool);
          thread.setName(name + " " + number.incrementAndGet());
          return thread;
        };
    // Unlike the ordinary thread pool this one starts a thread only if none is idle.
    threads =
        new ForkJoinPool(
            THREADS, factory, null, true, 0, THREADS, 1, null, IDLE_SECONDS, TimeUnit.SECONDS);
  }

  /** A call that may wait. */
  @FunctionalInterface
  interface Call {
    void run() throws IOException;
  }

  /** A call that may wait, and answers. */
  @FunctionalInterface
  interface Question<T> {
    T ask() throws IOException;
  }

  /**
   * Makes the call, on the caller's thread if that is a platform thread, and returns when it is
   * done.
   *
   * @throws IOException what the call threw
   */
  void run(Call call) throws IOException {
    ask(
        () -> {
          call.run();
          return true;
        });
  }

  /**
   * Makes a call that answers; otherwise as {@link #run}.
   *
   * @throws IOException what the call threw
   */
  <T> T ask(Question<T> question) throws IOException {
    if (!Thread.currentThread().isVirtual()) {
      return question.ask();
    }
    Callable<T> task = question::ask;
    // Not by the pool's own submit: its tasks throw a copy of what failed, without the message.
    FutureTask<T> result = new FutureTask<>(task);
    threads.execute(result);
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

  @Override
  public void close() {
    threads.shutdown();
  }
}
