package nbd.cache;

import java.io.IOException;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Work that many ask for, each of whom needs one run that begins after it has asked: at most one
 * runs and one waits, and all callers that wait for a run get its failure.
 *
 * <p>Invariant, guarded by the lock: a run that waits has not begun, so whoever finds it there may
 * share it; there is one only while another runs.
 */
final class SharedRuns {
  /** The work that concurrent callers share. */
  @FunctionalInterface
  interface Work {
    /**
     * Does it.
     *
     * @param since what the first of those who asked for this run has given
     */
    void run(long since) throws IOException;
  }

  private final Work work;
  private final ReentrantLock lock = new ReentrantLock();
  private @Nullable Run running;
  private @Nullable Run waiting;

  private static final class Run {
    final long since;

    /** Ends when the run's leader may begin. */
    final CompletableFuture<Void> turn = new CompletableFuture<>();

    final CompletableFuture<Optional<IOException>> end = new CompletableFuture<>();

    Run(long since) {
      this.since = since;
    }
  }

  SharedRuns(Work work) {
    this.work = work;
  }

  /**
   * Waits for a run that begins after this call, and makes it if nobody else does.
   *
   * @param since what {@link Storage#failedOpenings} was when the caller's request came
   * @throws IOException if it failed; of the caller's own, since others get it too
   */
  void await(long since) throws IOException {
    Run joined;
    boolean leads = true;
    lock.lock();
    try {
      if (running == null) {
        joined = new Run(since);
        joined.turn.complete(null);
        running = joined;
      } else if (waiting == null) {
        joined = new Run(since);
        waiting = joined;
      } else {
        joined = waiting;
        leads = false;
      }
    } finally {
      lock.unlock();
    }
    if (leads) {
      joined.turn.join();
      run(joined);
    }
    Optional<IOException> failure = joined.end.join();
    if (failure.isPresent()) {
      throw SharedFailure.ownOf(failure.get());
    }
  }

  private void run(Run run) {
    Optional<IOException> failure = Optional.empty();
    try {
      work.run(run.since);
    } catch (IOException failed) {
      failure = Optional.of(failed);
    } catch (RuntimeException | Error mistake) {
      failure = Optional.of(new IOException("it failed by a mistake: " + mistake, mistake));
    }
    Run next;
    lock.lock();
    try {
      next = waiting;
      waiting = null;
      running = next;
    } finally {
      lock.unlock();
    }
    run.end.complete(failure);
    if (next != null) {
      next.turn.complete(null);
    }
  }
}
